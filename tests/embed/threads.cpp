// threads BUNDLE OUT: eight threads, each with a hundred frames of its own, ask one runtime for features, which are written
// to OUT in the order of threads and frames; none is found in the cache. Frame f of thread t is SIDE x SIDE RGB: byte i
// is (31 i + 7 t + 13 f) mod 251.
#include <mova.hpp>

#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kThreads = 8, kFrames = 100, kSide = 40;

std::vector<unsigned char> frame(int thread, int number) {
  std::vector<unsigned char> pixels(3 * kSide * kSide);
  for (std::size_t i = 0; i < pixels.size(); i++)
    pixels[i] = static_cast<unsigned char>((31 * i + 7 * static_cast<unsigned>(thread) + 13 * static_cast<unsigned>(number)) % 251);
  return pixels;
}

void watch(mova::Runtime& runtime, int thread, std::vector<float>& all) {
  for (int number = 0; number < kFrames; number++) {
    const std::vector<unsigned char> pixels = frame(thread, number);
    const mova::Result result = runtime.features(mova::rgb8(pixels.data(), kSide, kSide), "pix2struct");
    const mova::Tensor tensor = result.tensor("features");
    all.insert(all.end(), tensor.values.begin(), tensor.values.end());
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return 2;
  try {
    mova_options options = mova::options();
    options.feature_cache = "0";
    options.threads = 1;
    options.backend = "ort";
    mova::Runtime runtime(arguments[1], options);
    std::vector<std::vector<float>> found(kThreads);
    std::vector<std::exception_ptr> wrong(kThreads);
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; i++)
      threads.emplace_back([&, i] {
        try {
          watch(runtime, i, found[static_cast<std::size_t>(i)]);
        } catch (...) {
          wrong[static_cast<std::size_t>(i)] = std::current_exception();
        }
      });
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& error : wrong)
      if (error) std::rethrow_exception(error);
    std::ofstream out(arguments[2], std::ios::binary);
    for (const std::vector<float>& features : found)
      out.write(reinterpret_cast<const char*>(features.data()), static_cast<std::streamsize>(features.size() * sizeof(float)));
    std::cout << runtime.stats_json() << '\n';
    return out.good() ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
