// MoVA's runtime in C++17, over mova.h: what has to be closed closes itself, what fails throws, what is large is a view.
//
//   mova::Runtime runtime("BUNDLE");
//   mova::Answer answer = runtime.answer(mova::rgb8(pixels, width, height), "What is on the table?");
//   std::cout << answer.text() << '\n';
//
// A Runtime may be used by any number of threads at once; docs/embedding.md tells more.
#ifndef MOVA_HPP
#define MOVA_HPP

#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "mova.h"

#if defined(__has_include)
#if __has_include(<version>)
#include <version>
#endif
#endif
#if defined(__cpp_lib_span)
#include <span>
#endif

namespace mova {

#if defined(__cpp_lib_span)
template <typename T>
using span = std::span<T>;
#else
// What this header needs of C++20's std::span.
template <typename T>
class span {
 public:
  constexpr span() noexcept = default;
  constexpr span(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
  constexpr T* data() const noexcept { return data_; }
  constexpr std::size_t size() const noexcept { return size_; }
  constexpr bool empty() const noexcept { return size_ == 0; }
  constexpr T& operator[](std::size_t index) const { return data_[index]; }
  constexpr T* begin() const noexcept { return data_; }
  constexpr T* end() const noexcept { return data_ + size_; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};
#endif

// A call failed: its status, and the line that mova_last_error() gave.
class Error : public std::runtime_error {
 public:
  Error(mova_status status, const std::string& text) : std::runtime_error(text), status_(status) {}
  mova_status status() const noexcept { return status_; }

 private:
  mova_status status_;
};

inline void check(mova_status status) {
  if (status != MOVA_OK) throw Error(status, mova_last_error());
}

// Pixels where they are, for the length of a call. stride: bytes from row to row, 0 where rows lie close.
inline mova_image image(const void* data, int width, int height, mova_format format, std::int64_t stride = 0) {
  return mova_image{data, width, height, stride, format, 0};
}

inline mova_image rgb8(const void* data, int width, int height, std::int64_t stride = 0) {
  return image(data, width, height, MOVA_RGB8, stride);
}

// Zeroed structures that know their size: change what you mean to.
inline mova_options options() {
  mova_options zero{};
  zero.struct_size = sizeof zero;
  return zero;
}

inline mova_request request() {
  mova_request zero{};
  zero.struct_size = sizeof zero;
  return zero;
}

// An array of float32 within a Result, in C order. It is valid as long as the Result it came from.
struct Tensor {
  span<const float> values;
  std::vector<std::int64_t> shape;
};

// What a call found. It owns all that its methods show; it can be moved, not copied.
class Result {
 public:
  Result() noexcept = default;
  explicit Result(mova_result* handle) noexcept : handle_(handle) {}
  Result(Result&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Result& operator=(Result&& other) noexcept {
    if (this != &other) {
      mova_release(handle_);
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  Result(const Result&) = delete;
  Result& operator=(const Result&) = delete;
  ~Result() { mova_release(handle_); }

  mova_result* handle() const noexcept { return handle_; }

  std::string_view text() const { return view(mova_result_text); }
  std::string_view json() const { return view(mova_result_json); }
  std::string_view experts() const { return view(mova_result_experts); }

  span<const std::int64_t> tokens() const {
    const std::int64_t* found = nullptr;
    std::size_t count = 0;
    check(mova_result_tokens(handle_, &found, &count));
    return {found, count};
  }

  Tensor tensor(const char* name) const {
    mova_tensor found;
    check(mova_result_tensor(handle_, name, &found));
    if (found.dtype != MOVA_FLOAT32) throw Error(MOVA_INTERNAL, std::string(name) + " is not float32");
    return {{static_cast<const float*>(found.data), static_cast<std::size_t>(found.bytes / sizeof(float))},
            {found.shape, found.shape + found.rank}};
  }

  // As mova_result_dlpack(): its deleter is yours to call, also when this is gone.
  DLManagedTensor* dlpack(const char* name) const {
    DLManagedTensor* found = nullptr;
    check(mova_result_dlpack(handle_, name, &found));
    return found;
  }

 private:
  std::string_view view(mova_status (*get)(mova_result*, const char**, std::size_t*)) const {
    const char* text = nullptr;
    std::size_t length = 0;
    check(get(handle_, &text, &length));
    return {text, length};
  }

  mova_result* handle_ = nullptr;
};

// An answer, and whether it was cancelled and is only what was said until then.
class Answer : public Result {
 public:
  Answer(mova_result* handle, bool cancelled) noexcept : Result(handle), cancelled_(cancelled) {}
  bool cancelled() const noexcept { return cancelled_; }

 private:
  bool cancelled_;
};

// A bundle that is open. It can be moved, not copied; nothing may run in it while it is moved or destroyed.
class Runtime {
 public:
  explicit Runtime(const std::string& path, const mova_options& how = options()) {
    if (mova_abi_version() != MOVA_ABI_VERSION)
      throw Error(MOVA_INVALID_ARGUMENT, std::string("compiled for another libmova than ") + mova_version());
    check(mova_open(path.c_str(), &how, &handle_));
  }
  Runtime(Runtime&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Runtime& operator=(Runtime&& other) noexcept {
    if (this != &other) {
      if (handle_) mova_close(handle_);
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  ~Runtime() {
    if (handle_) mova_close(handle_);
  }

  mova_runtime* handle() const noexcept { return handle_; }

  // Earlier than the destructor, which can't tell what went wrong.
  void close() { check(mova_close(std::exchange(handle_, nullptr))); }

  // text(), tokens(), experts().
  Result route(const mova_image& image, const std::string& question) {
    return result([&](mova_result** found) { return mova_route(handle_, &image, question.c_str(), found); });
  }

  // tensor("tokens"), tensor("gates"). experts: "sam,dinov2", "none"; without it the model chooses.
  Result encode(const mova_image& image, const std::string& question,
                const std::optional<std::string>& experts = std::nullopt) {
    const char* named = experts ? experts->c_str() : nullptr;
    return result([&](mova_result** found) { return mova_encode(handle_, &image, question.c_str(), named, found); });
  }

  // tensor("features"). name: "base", or an expert's.
  Result features(const mova_image& image, const std::string& name) {
    return result([&](mova_result** found) { return mova_features(handle_, &image, name.c_str(), found); });
  }

  // text(), tokens(), experts(), json(), cancelled().
  Answer answer(const mova_image& image, const std::string& question, const mova_request& how = request()) {
    mova_result* found = nullptr;
    mova_status status = mova_answer(handle_, &image, question.c_str(), &how, &found);
    return answered(status, found);
  }

  // The same; piece(std::string_view) is called with each piece of text, and ends the answer where it returns false.
  // It may throw: the answer ends, and the exception goes on from here.
  template <typename Piece>
  Answer stream(const mova_image& image, const std::string& question, Piece&& piece,
                const mova_request& how = request()) {
    struct Listener {
      std::remove_reference_t<Piece>* piece;
      std::exception_ptr thrown;
      static int hear(const char* text, std::size_t length, void* context) noexcept {
        auto* self = static_cast<Listener*>(context);
        try {
          return (*self->piece)(std::string_view(text, length)) ? 0 : 1;
        } catch (...) {
          self->thrown = std::current_exception();
          return 1;
        }
      }
    } listener{&piece, nullptr};
    mova_result* found = nullptr;
    mova_status status =
        mova_stream(handle_, &image, question.c_str(), &how, &Listener::hear, &listener, &found);
    if (listener.thrown) {
      mova_release(found);
      std::rethrow_exception(listener.thrown);
    }
    return answered(status, found);
  }

  // What was done since it was opened, as JSON.
  std::string stats_json() {
    Result found = result([&](mova_result** to) { return mova_stats_json(handle_, to); });
    return std::string(found.text());
  }

 private:
  template <typename Call>
  static Result result(Call call) {
    mova_result* found = nullptr;
    check(call(&found));
    return Result(found);
  }

  static Answer answered(mova_status status, mova_result* found) {
    if (status != MOVA_CANCELLED) check(status);
    return Answer(found, status == MOVA_CANCELLED);
  }

  mova_runtime* handle_ = nullptr;
};

}  // namespace mova

#endif
