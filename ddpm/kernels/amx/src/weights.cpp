#include <algorithm>

#include <sys/syscall.h>
#include <unistd.h>

#include "registers.h"
#include "weights.h"

alignas(64) constexpr std::uint16_t kInterleaved[32] = {
    0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
    8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};

namespace {

// Of two registers of float32, in turn, as bfloat16.
inline __m512i interleaved(__m512 even, __m512 odd) {
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
  return _mm512_permutexvar_epi16(_mm512_loadu_si512(kInterleaved), both);
}

// Packs 32 x 32 weights of one tap into two registers of 16 output channels.
void pack_block(const float* from, const WeightLayout& layout, int num_out, int num_in,
                bfloat16* to) {
  const bool is_whole = num_out == kChannels && num_in == kChannels;
  for (int half = 0; half < 2; ++half, to += kTile) {
    auto& packed = *reinterpret_cast<Register*>(to);
    if (is_whole && layout.in_stride == 1) {
      __m512i rows[kRows];
      for (int row = 0; row < kRows; ++row) {
        const Channels weights = load(from + (half * kRows + row) * layout.out_stride);
        rows[row] = (__m512i)_mm512_cvtne2ps_pbh(weights.high, weights.low);
      }
      transpose_words(rows, packed);
      continue;
    }
    for (int row = 0; row < kRows; ++row) {
      alignas(64) float pair[2][kRows] = {};
      const float* line = from + half * kRows * layout.out_stride + 2 * row * layout.in_stride;
      if (is_whole && layout.out_stride == 1) {
        const __m512 even = _mm512_loadu_ps(line);
        const __m512 odd = _mm512_loadu_ps(line + layout.in_stride);
        _mm512_store_si512(packed.words[row], interleaved(even, odd));
        continue;
      }
      for (int e = 0; e < 2 && 2 * row + e < num_in; ++e) {
        for (int out = 0; out < kRows && half * kRows + out < num_out; ++out) {
          pair[e][out] = line[e * layout.in_stride + out * layout.out_stride];
        }
      }
      _mm512_store_si512(packed.words[row],
                         interleaved(_mm512_load_ps(pair[0]), _mm512_load_ps(pair[1])));
    }
  }
}

}  // namespace

extern "C" void pack_weights(const float* weights, const WeightLayout* layout, bfloat16* packed) {
  const int out_blocks = layout->out_blocks(), in_blocks = layout->in_blocks();
#pragma omp parallel for collapse(3) schedule(static)
  for (int out_block = 0; out_block < out_blocks; ++out_block) {
    for (int in_block = 0; in_block < in_blocks; ++in_block) {
      for (int tap = 0; tap < layout->num_taps; ++tap) {
        const std::int64_t place =
            (std::int64_t(out_block) * in_blocks + in_block) * layout->num_taps + tap;
        pack_block(weights + out_block * kChannels * layout->out_stride +
                       in_block * kChannels * layout->in_stride + tap * layout->tap_stride,
                   *layout, std::min(kChannels, layout->num_out - out_block * kChannels),
                   std::min(kChannels, layout->num_in - in_block * kChannels),
                   packed + place * 2 * kTile);
      }
    }
  }
}

// Asks the kernel for the tile registers, which it gives only to processes that ask; 0 if it does.
extern "C" int request_tiles() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM of prctl.h
  return int(syscall(SYS_arch_prctl, kRequestPermission, kTileData));
}
