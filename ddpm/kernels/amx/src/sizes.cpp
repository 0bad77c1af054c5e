// The sizes of what the headers declare; those of a single file's own stand in that file.
#include "activation.h"
#include "attention.h"
#include "convolution.h"
#include "normalisation.h"
#include "sizes.h"
#include "tiles.h"
#include "weight_gradient.h"
#include "weights.h"

EXPORT_SIZE(Attention)
EXPORT_SIZE(Dropout)
EXPORT_SIZE(Geometry)
EXPORT_SIZE(GradientTap)
EXPORT_SIZE(Maps)
EXPORT_SIZE(PartSums)
EXPORT_SIZE(Sizes)
EXPORT_SIZE(Tap)
EXPORT_SIZE(WeightLayout)
