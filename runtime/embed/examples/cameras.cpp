// A thread a camera, each asking for features of its frames; here a camera is an image file.
//
//   cameras BUNDLE ENCODER FRAMES CAMERA.ppm...
//
// A line a camera: its file, the features' shape, a sum over their bits, and how many frames had the same features.
#include <mova.hpp>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "ppm.h"

namespace {

// An image file that shows the same frame each time.
class Camera {
 public:
  explicit Camera(const std::string& file) : file_(file) {
    if (!ppm_read(file.c_str(), &image_)) throw std::runtime_error(file + ": not a binary PPM file");
  }
  Camera(const Camera&) = delete;
  Camera& operator=(const Camera&) = delete;
  ~Camera() { std::free(image_.pixels); }

  const std::string& file() const { return file_; }
  mova_image frame() const { return mova::rgb8(image_.pixels, image_.width, image_.height); }

 private:
  std::string file_;
  ppm_image image_{};
};

// FNV-1a over the features' bytes: equal sums, equal features.
std::uint64_t sum(const mova::Tensor& tensor) {
  std::uint64_t found = 14695981039346656037u;
  for (float value : tensor.values) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    for (int shift = 0; shift < 32; shift += 8) found = (found ^ (bits >> shift & 255)) * 1099511628211u;
  }
  return found;
}

std::string watch(mova::Runtime& runtime, const std::string& file, const std::string& encoder, int frames) {
  const Camera camera(file);
  std::uint64_t first = 0;
  int alike = 0;
  std::ostringstream line;
  for (int i = 0; i < frames; i++) {
    const mova::Result result = runtime.features(camera.frame(), encoder);
    const mova::Tensor features = result.tensor("features");
    const std::uint64_t now = sum(features);
    if (i == 0) {
      first = now;
      line << camera.file() << ' ' << features.shape.at(0) << 'x' << features.shape.at(1) << ' ' << std::hex << now;
    }
    alike += now == first;
  }
  line << ' ' << std::dec << alike;
  return line.str();
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 5) {
    std::cerr << "usage: cameras BUNDLE ENCODER FRAMES CAMERA.ppm...\n";
    return 2;
  }
  try {
    mova::Runtime runtime(arguments[1]);
    const std::string encoder = arguments[2];
    const int frames = std::stoi(arguments[3]);
    const std::vector<std::string> files(arguments + 4, arguments + count);
    std::vector<std::string> lines(files.size());
    std::vector<std::exception_ptr> wrong(files.size());
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < files.size(); i++)
      threads.emplace_back([&, i] {
        try {
          lines[i] = watch(runtime, files[i], encoder, frames);
        } catch (...) {
          wrong[i] = std::current_exception();
        }
      });
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& error : wrong)
      if (error) std::rethrow_exception(error);
    for (const std::string& line : lines) std::cout << line << '\n';
    runtime.close();
  } catch (const mova::Error& error) {
    std::cerr << "cameras: " << mova_status_name(error.status()) << ": " << error.what() << '\n';
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "cameras: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
