// Scratch memory, all zero at first and aligned to cache lines; what a thread gives back it gets again, for fresh pages
// cost more than small convolutions do. No template on purpose: an instance of a standard template that one instruction
// set's code makes may be linked into another's.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

class Scratch {
 protected:
  explicit Scratch(size_t bytes) : block_(take(bytes)) { std::memset(memory(), 0, bytes); }
  ~Scratch() { give(block_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* memory() const {
    return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(block_.start) + 63) & ~uintptr_t{63});
  }

 private:
  struct Block {
    void* start;
    size_t size;
  };

  // The blocks that this thread keeps: few, and none of the large ones.
  struct Shelf {
    static constexpr int PLACES = 24;
    static constexpr size_t LARGEST = 4 << 20;
    Block blocks[PLACES] = {};
    ~Shelf() {
      for (Block& block : blocks) std::free(block.start);
    }
  };

  static Shelf& shelf() {
    static thread_local Shelf mine;
    return mine;
  }

  static Block take(size_t bytes) {
    for (Block& block : shelf().blocks) {
      if (!block.start || block.size < bytes || block.size > 2 * bytes + 4096) continue;
      const Block found = block;
      block = {};
      return found;
    }
    void* start = std::malloc(bytes + 64);
    if (!start) throw std::bad_alloc();
    return {start, bytes};
  }

  static void give(const Block& old) {
    if (old.size > Shelf::LARGEST) return std::free(old.start);
    for (Block& block : shelf().blocks) {
      if (block.start) continue;
      block = old;
      return;
    }
    Block& first = shelf().blocks[old.size % Shelf::PLACES];  // full: something has to go
    std::free(first.start);
    first = old;
  }

  Block block_;
};

struct Floats : Scratch {
  explicit Floats(int64_t count) : Scratch(count * sizeof(float)), data(static_cast<float*>(memory())) {}
  float* const data;
};

struct Integers : Scratch {
  explicit Integers(int64_t count) : Scratch(count * sizeof(int64_t)), data(static_cast<int64_t*>(memory())) {}
  int64_t* const data;
};
