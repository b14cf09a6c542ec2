// Runs a task for each number below `count` on several threads and returns when all are done.
//
// Where torch computes by the OpenMP of GCC its threads do this too: they wait busily for their next work, and others
// would have to share their cores. Elsewhere, and after a fork, which OpenMP's threads do not survive, a small pool does.
// It starts its threads at the first call that wants them; a call that finds it busy, or is made inside a task, runs
// alone; the child of a fork starts afresh.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

#ifndef _WIN32
#include <dlfcn.h>
#include <pthread.h>
#endif

class Pool {
 public:
  using Task = std::function<void(int64_t)>;

  // The pool of this process. It is never destroyed: its threads may outlive the statics of the library.
  static Pool& instance() { return *current(); }

  // In a child, from the moment on when it is forked.
  static void start_afresh() { current() = new Pool, forked() = true; }

  void run(int threads, int64_t count, const Task& task) {
    const int wanted = static_cast<int>(count < threads ? count : threads);
    Job job{task, count};
    if (const Team team = forked() ? nullptr : torchs_team()) {
      return team([](void* mine) { static_cast<Job*>(mine)->work(); }, &job, static_cast<unsigned>(wanted), 0);
    }
    std::unique_lock<std::mutex> alone(busy_, std::try_to_lock);
    if (wanted < 2 || !alone.owns_lock()) return job.work();
    start(wanted - 1, job);
    job.work();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
  }

 private:
  struct Job {
    const Task& task;
    const int64_t count;
    std::atomic<int64_t> next{0};

    void work() {
      for (int64_t i; (i = next.fetch_add(1)) < count;) task(i);
    }
  };

  // `GOMP_parallel`: a function, what to give it, how many threads, flags. torch makes its library visible to all.
  using Team = void (*)(void (*)(void*), void*, unsigned, unsigned);

  static Team torchs_team() {
#ifdef _WIN32
    return nullptr;
#else
    static const Team found = reinterpret_cast<Team>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return found;
#endif
  }

  static bool& forked() {
    static bool yes = false;
    return yes;
  }

  static Pool*& current() {
    static Pool* pool = new Pool;
    return pool;
  }

  void start(int helpers, Job& job) {
    std::lock_guard<std::mutex> lock(mutex_);
    while (started_ < helpers) {
      std::thread([this, me = started_] { serve(me); }).detach();
      ++started_;
    }
    job_ = &job;
    wanted_ = running_ = helpers;
    ++round_;
    wake_.notify_all();
  }

  void serve(int me) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (uint64_t seen = 0;;) {
      wake_.wait(lock, [&] { return round_ != seen; });
      seen = round_;
      if (me >= wanted_) continue;
      Job* const job = job_;
      lock.unlock();
      job->work();
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex busy_, mutex_;
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;  // of `run`, which waits until nobody works at it
  int started_ = 0, wanted_ = 0, running_ = 0;
  uint64_t round_ = 0;
};

#ifndef _WIN32
static const int watching_forks = pthread_atfork(nullptr, nullptr, Pool::start_afresh);
#endif
