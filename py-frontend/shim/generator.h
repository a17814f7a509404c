// Random generators: where the seeds of recorded random operators come from.
#pragma once

#include <ATen/core/Generator.h>

#include <cstdint>

#include "backend.h"

namespace genie {

// A device's default generator. Lives as long as the process.
const at::Generator& default_generator(c10::DeviceIndex device);

at::Generator new_generator(c10::DeviceIndex device);

// The next seed. Throws unless the generator is one of ours.
int64_t draw(const at::Generator& generator);

}  // namespace genie
