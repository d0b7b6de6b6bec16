// close_in_use BUNDLE: the first calls of a process come from eight threads at once; then one closes what the others use,
// and what one is being answered by. Prints what the eight opens gave, every status that calls ended with, and how an
// answer ended after how many of its pieces.
#include <mova.h>

#include <atomic>
#include <chrono>
#include <iostream>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kThreads = 8, kSide = 32;

template <typename Work>
void in_threads(Work work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; i++) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
}

// An answer that is closed by another thread when its third piece has come.
struct Listener {
  mova_runtime* runtime;
  int pieces = 0;
};

int hear(const char*, size_t, void* context) {
  Listener& listener = *static_cast<Listener*>(context);
  if (++listener.pieces == 3) std::thread([&] { mova_close(listener.runtime); }).join();
  return 0;
}

void stream(mova_runtime* runtime) {
  std::vector<unsigned char> pixels(3 * kSide * kSide);
  mova_image image{pixels.data(), kSide, kSide, 0, MOVA_RGB8, 0};
  mova_request request{};
  request.struct_size = sizeof request;
  request.max_new_tokens = 200;
  request.experts = "none";
  Listener listener{runtime};
  mova_result* result = nullptr;
  mova_status status = mova_stream(runtime, &image, "What is on the table?", &request, hear, &listener, &result);
  std::cout << mova_status_name(status) << " after " << listener.pieces << (result ? ", with a result" : "") << '\n';
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) return 2;
  std::vector<mova_runtime*> runtimes(kThreads);
  std::vector<mova_status> opened(kThreads);
  in_threads([&](int i) {
    opened[static_cast<std::size_t>(i)] = mova_open(arguments[1], nullptr, &runtimes[static_cast<std::size_t>(i)]);
  });
  for (mova_status status : opened) std::cout << mova_status_name(status) << ' ';
  std::cout << '\n';

  mova_runtime* runtime = runtimes[0];
  std::atomic<int> done{0};
  std::atomic<bool> closed{false};
  std::mutex lock;
  std::map<std::string, int> ends;
  std::thread closing([&] {
    while (done < 3 * kThreads) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    mova_close(runtime);
    closed = true;
  });
  in_threads([&](int thread) {
    std::vector<unsigned char> pixels(3 * kSide * kSide);
    for (int call = 0; call < 100000; call++) {
      bool was_closed = closed;
      pixels[0] = static_cast<unsigned char>(call), pixels[1] = static_cast<unsigned char>(thread);
      mova_image image{pixels.data(), kSide, kSide, 0, MOVA_RGB8, 0};
      mova_result* result = nullptr;
      mova_status status = mova_features(runtime, &image, "pix2struct", &result);
      mova_release(result);
      done++;
      std::lock_guard<std::mutex> guard(lock);
      ends[std::string(mova_status_name(status)) + (status && *mova_last_error() ? std::string(": ") + mova_last_error() : "")]++;
      if (was_closed) return;
    }
  });
  closing.join();
  for (const auto& end : ends) std::cout << end.first << '\n';
  stream(runtimes[1]);
  for (std::size_t i = 2; i < runtimes.size(); i++)
    if (mova_close(runtimes[i]) != MOVA_OK) return 1;
  return 0;
}
