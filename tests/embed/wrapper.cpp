// wrapper BUNDLE IMAGE.ppm: what mova.hpp promises besides what the examples show. Prints a line for each that holds not.
#include <mova.hpp>

#include <cstring>
#include <iostream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "ppm.h"

// DLPack's structures as its specification (version 0.8) lays them out; programs include dlpack.h.
extern "C" {
struct DLManagedTensor {
  struct {
    void* data;
    struct {
      std::int32_t type, id;
    } device;
    std::int32_t ndim;
    struct {
      std::uint8_t code, bits;
      std::uint16_t lanes;
    } dtype;
    std::int64_t *shape, *strides;
    std::uint64_t byte_offset;
  } tensor;
  void* context;
  void (*deleter)(DLManagedTensor*);
};
}

static_assert(!std::is_copy_constructible_v<mova::Runtime> && std::is_nothrow_move_constructible_v<mova::Runtime>);
static_assert(!std::is_copy_assignable_v<mova::Result> && std::is_nothrow_move_assignable_v<mova::Result>);
static_assert(!std::is_copy_constructible_v<mova::Answer> && std::is_nothrow_move_constructible_v<mova::Answer>);

namespace {

int wrong = 0;

void expect(const char* what, bool holds) {
  if (holds) return;
  std::cout << "does not hold: " << what << '\n';
  wrong++;
}

template <typename Call>
void refuses(const char* what, mova_status status, const char* text, Call call) {
  try {
    call();
    expect(what, false);
  } catch (const mova::Error& error) {
    expect(what, error.status() == status && std::strstr(error.what(), text) != nullptr);
    if (error.status() != status) std::cout << mova_status_name(error.status()) << ": " << error.what() << '\n';
  }
}

void answers(mova::Runtime& runtime, const mova_image& image) {
  mova_request how = mova::request();
  how.max_new_tokens = 6;
  how.experts = "none";
  const mova::Answer whole = runtime.answer(image, "What is it?", how);
  std::string joined;
  const mova::Answer streamed = runtime.stream(
      image, "What is it?",
      [&](std::string_view piece) {
        joined += piece;
        return true;
      },
      how);
  expect("a stream's pieces are the answer", joined == whole.text() && joined == streamed.text());
  expect("the same tokens", whole.tokens().size() == 6 && streamed.tokens().size() == 6 &&
                                std::memcmp(whole.tokens().data(), streamed.tokens().data(), 48) == 0);
  expect("no experts", whole.experts().empty());
  expect("nobody cancelled", !whole.cancelled() && !streamed.cancelled());
  expect("JSON", whole.json().find("\"finish\": \"length\"") != std::string_view::npos);

  const mova::Answer stopped = runtime.stream(image, "What is it?", [](std::string_view) { return false; }, how);
  expect("a stream that was stopped", stopped.cancelled() && stopped.tokens().size() < 6);
  try {
    runtime.stream(image, "What is it?", [](std::string_view) -> bool { throw std::domain_error("enough"); }, how);
    expect("an exception of the callback comes out", false);
  } catch (const std::domain_error& error) {
    expect("an exception of the callback comes out", std::string(error.what()) == "enough");
  }
  std::size_t within = 0;  // a callback may use the runtime
  runtime.stream(
      image, "What is it?",
      [&](std::string_view) {
        within += runtime.features(image, "pix2struct").tensor("features").values.size();
        return true;
      },
      how);
  expect("calls within a callback", within > 0);

  const char* const stops[] = {"B", nullptr};
  how.stop = stops;
  expect("a stop ends the answer", runtime.answer(image, "What is it?", how).text().find('B') == std::string_view::npos);
  const mova::Result route = runtime.route(image, "What is it?");
  expect("a route", !route.tokens().empty() && !route.text().empty() && !route.experts().empty());
}

void tensors(mova::Runtime& runtime, const mova_image& image) {
  mova::Result result = runtime.features(image, "pix2struct");
  const mova::Tensor features = result.tensor("features");
  const float first = features.values[0];
  mova::Result moved = std::move(result);
  expect("moving moves", result.handle() == nullptr && moved.handle() != nullptr);
  expect("pointers stay when a result moves", moved.tensor("features").values.data() == features.values.data());
  refuses("an empty result", MOVA_INVALID_ARGUMENT, "result is NULL", [&] { result.tensor("features"); });
  refuses("a tensor that is not there", MOVA_INVALID_ARGUMENT, "it has 'features'", [&] { moved.tensor("gates"); });

  DLManagedTensor* lent = moved.dlpack("features");
  expect("DLPack shares memory", lent->tensor.data == features.values.data() && lent->tensor.byte_offset == 0);
  expect("DLPack's type", lent->tensor.device.type == 1 && lent->tensor.dtype.code == 2 &&
                              lent->tensor.dtype.bits == 32 && lent->tensor.dtype.lanes == 1);
  expect("DLPack's shape", lent->tensor.ndim == 2 && lent->tensor.shape[0] == features.shape[0] &&
                               lent->tensor.shape[1] == features.shape[1]);
  moved = mova::Result();  // releases
  expect("DLPack outlives the result", static_cast<float*>(lent->tensor.data)[0] == first);
  lent->deleter(lent);

  const mova::Result visual = runtime.encode(image, "What is it?", "sam, dinov2");
  const mova::Tensor tokens = visual.tensor("tokens"), gates = visual.tensor("gates");
  expect("visual tokens", tokens.shape.size() == 2 && tokens.values.size() == static_cast<std::size_t>(
                                                                                   tokens.shape[0] * tokens.shape[1]));
  expect("gates", gates.shape.size() == 2 && gates.shape[1] == 7);
}

}  // namespace

int main(int count, char** arguments) {
  ppm_image pixels;
  if (count != 3 || !ppm_read(arguments[2], &pixels)) return 2;
  const mova_image image = mova::rgb8(pixels.pixels, pixels.width, pixels.height);
  refuses("no bundle", MOVA_BUNDLE, "no such folder", [] { mova::Runtime nowhere("/does/not/exist"); });
  {
    mova::Runtime runtime(arguments[1]);
    answers(runtime, image);
    tensors(runtime, image);
    mova::Runtime other = std::move(runtime);
    expect("a runtime moves", runtime.handle() == nullptr && !other.features(image, "pix2struct").tensor("features").shape.empty());
    refuses("a runtime that was moved", MOVA_INVALID_ARGUMENT, "runtime is NULL", [&] { runtime.stats_json(); });
    runtime = std::move(other);
    expect("and back", runtime.stats_json().front() == '{');
    runtime.close();
    refuses("close is once", MOVA_INVALID_ARGUMENT, "runtime is NULL", [&] { runtime.close(); });
  }
  std::free(pixels.pixels);
  std::cout << (wrong ? "wrong\n" : "all holds\n");
  return wrong != 0;
}
