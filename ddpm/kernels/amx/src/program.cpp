// Calls of kernels one after another, with no way back to the caller in between.

#include "sizes.h"

struct Layer;
struct Attention;

extern "C" void compute_layer(const Layer* layer);
extern "C" void attend(const Attention* attention);

struct Call {  // one of them is null
  const Layer* layer;
  const Attention* attention;
};

struct Program {
  const Call* calls;
  int num_calls;
};

EXPORT_SIZE(Call)
EXPORT_SIZE(Program)

extern "C" void run_program(const Program* program) {
  for (int i = 0; i < program->num_calls; ++i) {
    const Call& call = program->calls[i];
    if (call.layer) {
      compute_layer(call.layer);
    } else {
      attend(call.attention);
    }
  }
}
