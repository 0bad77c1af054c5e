#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

// Memory that lasts from call to call, of one thread: what is taken anew each time comes from far.
class Room {
 public:
  Room() = default;
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  ~Room() { std::free(memory_); }

  template <typename T>
  T* of(std::int64_t count) {
    constexpr std::size_t kPage = 2 << 20;
    const std::size_t size = (count * sizeof(T) + kPage - 1) / kPage * kPage;
    if (size > size_) {
      std::free(memory_);
      memory_ = std::aligned_alloc(kPage, size);
      if (!memory_) std::abort();
      madvise(memory_, size, MADV_HUGEPAGE);
      size_ = size;
    }
    return static_cast<T*>(memory_);
  }

 private:
  void* memory_ = nullptr;
  std::size_t size_ = 0;
};
