// The C interface of the compiled kernels, and the choice of the instruction set when they run.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>

#include "geometry.h"
#include "pages.h"
#include "pool.h"
#include "scratch.h"

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 32")
#else
#error "the kernels are written with the vector extensions of GCC and clang"
#endif

#define INLINE inline __attribute__((always_inline))
#define ALONE __attribute__((noinline))  // all registers for itself

namespace baseline {  // SSE2, NEON, or whatever the compiler takes for granted
#define LANES 4
#include "lanes.h"
#include "depthwise.h"
#include "rows.h"
#include "fields.h"
#include "correlate.h"
#include "dense.h"
#include "pixels.h"
#undef LANES
#undef IN_REGISTER
}  // namespace baseline

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace avx2 {
#define LANES 8
#include "lanes.h"
#include "depthwise.h"
#include "rows.h"
#include "fields.h"
#include "correlate.h"
#include "dense.h"
#include "pixels.h"
#undef LANES
#undef IN_REGISTER
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx2,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx2,fma")
#endif
namespace avx512 {
#define LANES 16
#include "lanes.h"
#include "depthwise.h"
#include "rows.h"
#include "fields.h"
#include "correlate.h"
#include "dense.h"
#include "pixels.h"
#undef LANES
#undef IN_REGISTER
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

namespace {

using Forward = decltype(&baseline::forward);
using Backward = decltype(&baseline::backward);

struct Kernels {
  Forward forward;
  Backward backward;
  int64_t at_once;  // channels that one step of it takes

  int64_t jobs(const Geometry& g) const { return (g.C + at_once - 1) / at_once; }  // of one sample, or of all
};

int best_level() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
  return __builtin_cpu_supports("avx512f") ? 2 : 1;
#else
  return 0;
#endif
}

int level = best_level();

// Whether `rows.h` serves: rows of two vectors or more (of one, where that is long, or where there are too few channels
// for `depthwise.h`; of more than one and a half for the smallest kernel, which has little to compute in return for being
// moved into lanes), and no zeros that the gradient of the input would never see.
bool in_rows(const Geometry& g, int64_t lanes) {
  const bool narrow = g.ph <= (g.Kh - 1) * g.dh && g.pw <= (g.Kw - 1) * g.dw;
  const bool known = g.Kh == g.Kw && (g.Kh == 3 || g.Kh == 5 || g.Kh == 7);
  const int64_t least = g.C < lanes || lanes == 16 ? lanes : g.Kh == 3 ? 3 * lanes / 2 + 1 : 2 * lanes;
  return known && narrow && g.sh == 1 && g.sw == 1 && g.W >= least && g.Wo >= least;
}

#define ROWS(level, K) Kernels{level::forward_rows<K>, level::backward_rows<K>, 1}
#define CHOOSE_ROWS(level, lanes) \
  if (in_rows(g, lanes)) return g.Kh == 3 ? ROWS(level, 3) : g.Kh == 5 ? ROWS(level, 5) : ROWS(level, 7)

// Fewer columns or channels than lanes would leave some of them idle.
Kernels kernels(const Geometry& g) {
#if defined(__x86_64__)
  if (level == 2) CHOOSE_ROWS(avx512, 16);
  if (level >= 1) CHOOSE_ROWS(avx2, 8);
#endif
  if (level == 0) CHOOSE_ROWS(baseline, 4);
#if defined(__x86_64__)
  if (level == 2 && g.C > 8) return {avx512::forward, avx512::backward, 16};
  if (level >= 1) return {avx2::forward, avx2::backward, 8};
#endif
  return {baseline::forward, baseline::backward, 4};
}

struct DenseKernels {
  Forward forward;
  Backward backward;
  decltype(&baseline::correlate_dense) correlate;
};

#define DENSE(level) {level::forward_dense, level::backward_dense, level::correlate_dense}

DenseKernels dense_kernels() {
#if defined(__x86_64__)
  if (level == 2) return DENSE(avx512);
  if (level == 1) return DENSE(avx2);
#endif
  return DENSE(baseline);
}

struct PixelKernels {
  decltype(&baseline::map_pixels) map, spread, correlate;
};

#define PIXELS(level) {level::map_pixels, level::spread_pixels, level::correlate_pixels}

PixelKernels pixel_kernels() {
#if defined(__x86_64__)
  if (level == 2) return PIXELS(avx512);
  if (level == 1) return PIXELS(avx2);
#endif
  return PIXELS(baseline);
}

// Multiply-adds below which waking another thread costs more than it brings.
constexpr int64_t kWorthAThread = 200000;

template <class Range>
void parallel(const Geometry& g, int64_t count, const Range& range) {
  const int64_t work = g.B * g.C * g.To * g.Ho * g.Wo * g.Kt * g.Kh * g.Kw * (g.outputs ? g.outputs : 1);
  const int64_t threads = std::max<int64_t>(1, std::min({g.threads, count, work / kWorthAThread}));
  const int64_t pieces = threads == 1 ? 1 : std::min(count, 4 * threads);
  if (pieces == 1) return range(0, count);
  std::atomic<bool> failed{false};  // no exception may leave a thread
  Pool::instance().run(static_cast<int>(threads), pieces, [&](int64_t i) {
    try {
      range(count * i / pieces, count * (i + 1) / pieces);
    } catch (...) {
      failed = true;
    }
  });
  if (failed) throw std::bad_alloc();
}

// Whether something ran to its end (0) or memory ran out (1): no exception crosses the C interface.
template <class Run>
int status_of(const Run& run) {
  try {
    run();
    return 0;
  } catch (...) {
    return 1;
  }
}

int64_t inputs(const Geometry& g) { return g.B * g.C * g.T * g.H * g.W; }

int64_t outputs(const Geometry& g) { return g.B * (g.outputs ? g.outputs : g.C) * g.To * g.Ho * g.Wo; }

int64_t taps(const Geometry& g) { return g.C * g.Kh * g.Kw; }

// A depthwise convolution as some in which all samples share their weights. Weights of single samples count as channels
// of one sample.
template <class Use>
void each_block(const Geometry& given, const Use& use) {
  Geometry one = given;
  if (given.sets == given.B) {
    one.C = given.B * given.C, one.B = one.sets = 1;
    return use(one, 0);
  }
  one.B = given.together(), one.sets = 1;
  for (int64_t block = 0; block < given.sets; ++block) use(one, block);
}

}  // namespace

extern "C" {  // what computes returns 0, or 1 where memory ran out

// The instruction set in use (0 baseline, 1 AVX2, 2 AVX-512); a `wanted` that this CPU has is used from now on.
int nni_dynconv_level(int wanted) {
  if (wanted >= 0) level = std::min(wanted, best_level());
  return level;
}

// The version of this interface: 2 since what computes returns a status, 3 since kernels may vary from place to place.
int nni_dynconv_interface() { return 3; }

// y[b][c] = x[b][c] * weight[set of b][c], all of them contiguous.
int nni_dynconv_depthwise(const Geometry* given, const float* x, const float* weight, float* y) {
  return status_of([&] {
    expect_huge_pages(y, outputs(*given));
    each_block(*given, [&](const Geometry& g, int64_t block) {
      const Kernels use = kernels(g);
      const float *own = x + block * inputs(g), *kernel = weight + block * taps(g);
      parallel(g, g.B * use.jobs(g), [&](int64_t first, int64_t last) {
        use.forward(g, own, kernel, y + block * outputs(g), first, last);
      });
    });
  });
}

// The gradients of x and weight, either of which may be null: not wanted.
int nni_dynconv_depthwise_backward(const Geometry* given, const float* x, const float* weight, const float* dy,
                                    float* dx, float* dw) {
  return status_of([&] {
    expect_huge_pages(dx, inputs(*given));
    each_block(*given, [&](const Geometry& g, int64_t block) {
      const Kernels use = kernels(g);
      const float *own = x + block * inputs(g), *kernel = weight + block * taps(g), *pull = dy + block * outputs(g);
      float *to = dx ? dx + block * inputs(g) : nullptr, *into = dw ? dw + block * taps(g) : nullptr;
      parallel(g, use.jobs(g), [&](int64_t first, int64_t last) { use.backward(g, own, kernel, pull, to, into, first, last); });
    });
  });
}

// y[b][o] = the sum of x[b][c] * weight[set of b][o][c] over c, all of them contiguous.
int nni_dynconv_dense(const Geometry* given, const float* x, const float* weight, float* y) {
  return status_of([&] {
    const DenseKernels use = dense_kernels();
    expect_huge_pages(y, outputs(*given));
    parallel(*given, given->B, [&](int64_t first, int64_t last) { use.forward(*given, x, weight, y, first, last); });
  });
}

// Its gradients, either of which may be null: not wanted; `x` may be null without `dw`.
int nni_dynconv_dense_backward(const Geometry* given, const float* x, const float* weight, const float* dy, float* dx,
                                float* dw) {
  return status_of([&] {
    const Geometry& g = *given;
    const DenseKernels use = dense_kernels();
    const bool apart = g.sets < g.B;  // samples share weights: their gradients are jobs of their own
    expect_huge_pages(dx, inputs(g));
    if (dx || !apart) {
      parallel(g, g.B, [&](int64_t first, int64_t last) {
        use.backward(g, x, weight, dy, dx, apart ? nullptr : dw, first, last);
      });
    }
    if (dw && apart) {
      parallel(g, g.sets * baseline::jobs(g),
               [&](int64_t first, int64_t last) { use.correlate(g, x, dy, dw, first, last); });
    }
  });
}

// Kernels that vary from place to place, of `groups` groups of channels, contiguous: `which` is 0 for y of x and weight,
// 1 for dx of dy and weight, 2 for dweight of x and dy.
int nni_dynconv_pixels(const Geometry* given, int which, const float* one, const float* other, float* to) {
  return status_of([&] {
    const Geometry& g = *given;
    const PixelKernels use = pixel_kernels();
    const auto run = which == 0 ? use.map : which == 1 ? use.spread : use.correlate;
    expect_huge_pages(to, which == 0 ? outputs(g) : which == 1 ? inputs(g) : g.B * g.groups * g.Kh * g.Kw * g.Ho * g.Wo);
    parallel(g, g.B * g.groups, [&](int64_t first, int64_t last) { run(g, one, other, to, first, last); });
  });
}
}
