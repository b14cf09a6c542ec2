// What a convolution is asked to do; the order of the fields is that of `functional/paths/kernels.py`.
#pragma once

#include <cstdint>

struct Geometry {
  int64_t B, C;
  int64_t T, H, W, To, Ho, Wo, Kt, Kh, Kw;     // sizes of input, output and kernel; T, To and Kt are 1 of an image
  int64_t st, sh, sw, pt, ph, pw, dt, dh, dw;  // stride, padding, dilation
  int64_t sets;     // of weights
  int64_t groups;   // of channels that share kernels, where those vary from place to place; or
                    // of a dense convolution: sample b is one group, b % groups, of a sample that was cut into them
  int64_t threads;  // as many as torch would use
  int64_t outputs;  // channels of a dense convolution's output; 0: it is depthwise

  // Samples of a set, one after the other but for the groups between them, each of which has sets of its own.
  int64_t together() const { return B / sets; }
  int64_t set(int64_t b) const { return b / (together() * groups) * groups + b % groups; }
  int64_t sample(int64_t set, int64_t i) const { return (set / groups * together() + i) * groups + set % groups; }
};
