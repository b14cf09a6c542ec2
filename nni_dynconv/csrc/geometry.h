// What a convolution is asked to do; the order of the fields is that of `functional/kernels.py`.
#pragma once

#include <cstdint>

struct Geometry {
  int64_t B, C;
  int64_t T, H, W, To, Ho, Wo, Kt, Kh, Kw;     // sizes of input, output and kernel; T, To and Kt are 1 of an image
  int64_t st, sh, sw, pt, ph, pw, dt, dh, dw;  // stride, padding, dilation
  int64_t sets;     // of weights: samples take turns, sample b has set b % sets
  int64_t threads;  // as many as torch would use
  int64_t outputs;  // channels of a dense convolution's output; 0: it is depthwise
};
