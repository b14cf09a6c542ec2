// Scratch memory, all zero at first. No template on purpose: an instance of a standard template that one instruction
// set's code makes may be linked into another's.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

class Scratch {
 protected:
  explicit Scratch(int64_t bytes) : memory_(std::calloc(1, bytes > 0 ? bytes : 1)) {
    if (!memory_) throw std::bad_alloc();
  }
  ~Scratch() { std::free(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* memory_;
};

struct Floats : Scratch {
  explicit Floats(int64_t count) : Scratch(count * sizeof(float)), data(static_cast<float*>(memory_)) {}
  float* const data;
};

struct Offsets : Scratch {
  explicit Offsets(int64_t count) : Scratch(count * sizeof(int64_t)), data(static_cast<int64_t*>(memory_)) {}
  int64_t* const data;
};
