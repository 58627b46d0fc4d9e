#include "frame_buffer.h"

#include <algorithm>
#include <cstring>

namespace cvrs {

void gather(const ConstPlanes &source, const FrameShape &shape, std::byte *target) {
    for (const auto &plane : source) {
        for (std::size_t row = 0; row < shape.rows; ++row) {
            std::memcpy(target, plane.data + static_cast<std::ptrdiff_t>(row) * plane.stride, shape.row_bytes);
            target += shape.row_bytes;
        }
    }
}

void scatter(const std::byte *source, const FrameShape &shape, const Planes &target) {
    for (const auto &plane : target) {
        for (std::size_t row = 0; row < shape.rows; ++row) {
            std::memcpy(plane.data + static_cast<std::ptrdiff_t>(row) * plane.stride, source, shape.row_bytes);
            source += shape.row_bytes;
        }
    }
}

BufferRing::BufferRing(std::size_t slots, std::size_t bytes, Allocator allocate)
    : bytes_(bytes), allocate_(std::move(allocate)), slots_(slots) {}

BufferRing::Lease BufferRing::acquire() {
    const auto is_free = [](const Slot &slot) { return !slot.in_use; };
    std::unique_lock lock(mutex_);
    auto found = slots_.end();
    freed_.wait(lock, [&] {
        found = std::find_if(slots_.begin(), slots_.end(), is_free);
        return found != slots_.end();
    });
    found->in_use = true;
    const auto index = static_cast<std::size_t>(found - slots_.begin());
    Lease lease(*this, index); // from here on the slot is given back whatever happens
    const bool allocated = found->memory.data != nullptr;
    lock.unlock();
    if (!allocated)
        slots_[index].memory = allocate_(bytes_); // only the lease's owner touches the slot's memory
    return lease;
}

void BufferRing::release(std::size_t slot) noexcept {
    {
        const std::lock_guard lock(mutex_);
        slots_[slot].in_use = false;
    }
    freed_.notify_one();
}

BufferRing::Lease::~Lease() {
    if (ring_)
        ring_->release(slot_);
}

const Memory &BufferRing::Lease::memory() const { return ring_->slots_[slot_].memory; }

GroupCache::Entries::iterator GroupCache::locate(std::int64_t output) {
    return std::find_if(entries_.begin(), entries_.end(), [output](const auto &entry) {
        return entry.first <= output && output - entry.first < static_cast<std::int64_t>(entry.second->size());
    });
}

GroupCache::Frame GroupCache::find(std::int64_t output) {
    const std::lock_guard lock(mutex_);
    const auto found = locate(output);
    if (found == entries_.end())
        return nullptr;
    entries_.splice(entries_.begin(), entries_, found);
    return (*found->second)[static_cast<std::size_t>(output - found->first)];
}

void GroupCache::insert(std::int64_t begin, Group frames) {
    Entries evicted; // destroyed after the lock is gone: freeing frames is the host's business
    const std::lock_guard lock(mutex_);
    if (const auto found = locate(begin); found != entries_.end())
        evicted.splice(evicted.begin(), entries_, found);
    entries_.emplace_front(begin, std::move(frames));
    if (entries_.size() > capacity_)
        evicted.splice(evicted.begin(), entries_, std::prev(entries_.end()));
}

} // namespace cvrs
