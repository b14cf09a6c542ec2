// A small pool of threads: `parallel` runs a task for each number below `count` and returns when all are done.
//
// The pool starts its threads at the first call that wants them. A call that finds the pool busy, or is made inside
// a task, runs alone. After a fork the child starts afresh: threads do not survive a fork.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <pthread.h>
#endif

class Pool {
 public:
  using Task = std::function<void(int64_t)>;

  // The pool of this process. It is never destroyed: its threads may outlive the statics of the library.
  static Pool& instance() {
    static std::once_flag once;
    std::call_once(once, [] {
      current() = new Pool;
#ifndef _WIN32
      pthread_atfork(nullptr, nullptr, [] { current() = new Pool; });
#endif
    });
    return *current();
  }

  void run(int threads, int64_t count, const Task& task) {
    std::unique_lock<std::mutex> alone(busy_, std::try_to_lock);
    if (threads < 2 || count < 2 || !alone.owns_lock()) {
      for (int64_t i = 0; i < count; ++i) task(i);
      return;
    }
    const int helpers = static_cast<int>(count < threads ? count : threads) - 1;
    start(helpers, count, task);
    work();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
    task_ = nullptr;
  }

 private:
  static Pool*& current() {
    static Pool* pool = nullptr;
    return pool;
  }

  void start(int helpers, int64_t count, const Task& task) {
    std::lock_guard<std::mutex> lock(mutex_);
    while (started_ < helpers) {
      std::thread([this, me = started_] { serve(me); }).detach();
      ++started_;
    }
    task_ = &task;
    next_ = 0;
    count_ = count;
    wanted_ = running_ = helpers;
    ++round_;
    wake_.notify_all();
  }

  void work() {
    for (int64_t i; (i = next_.fetch_add(1)) < count_;) (*task_)(i);
  }

  void serve(int me) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (uint64_t seen = 0;;) {
      wake_.wait(lock, [&] { return round_ != seen; });
      seen = round_;
      if (me >= wanted_) continue;
      lock.unlock();
      work();
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex busy_, mutex_;
  std::condition_variable wake_, done_;
  const Task* task_ = nullptr;
  std::atomic<int64_t> next_{0};
  int64_t count_ = 0;
  int started_ = 0, wanted_ = 0, running_ = 0;
  uint64_t round_ = 0;
};
