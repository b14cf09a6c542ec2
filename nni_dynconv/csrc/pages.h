// Fresh memory is paid for page by page when it is first written: with pages of 4 KiB that takes longer than a depthwise
// convolution does. Large outputs ask for huge pages, which Linux gives to whoever asks ("madvise" in
// /sys/kernel/mm/transparent_hugepage/enabled, the default of most distributions).
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

// About `count` floats that will all be written; only an advice, which may be refused.
inline void expect_huge_pages(float* data, int64_t count) {
#if defined(MADV_HUGEPAGE)
  constexpr int64_t WORTH_A_CALL = 4 << 20;  // bytes: at least one whole huge page among them
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)), start = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (start + page - 1) / page * page, last = (start + count * sizeof(float)) / page * page;
  if (data && count * static_cast<int64_t>(sizeof(float)) >= WORTH_A_CALL) {
    (void)madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#else
  (void)data, (void)count;
#endif
}
