// Keeps this library in memory until the process ends.

#pragma once

namespace cvrs {

// VapourSynth unloads plugins with their core, while Python still holds functions of this library.
// May be called more than once. Where the system refuses, the library stays as loaded as it was.
void keep_loaded() noexcept;

} // namespace cvrs
