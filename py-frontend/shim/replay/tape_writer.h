// What a tape is written with, once it is known which steps it calls.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "replay/tape_maker.h"

namespace genie::replay {

// Writes a tape: parts in the order of the steps.
class TapeMaker::Writer {
 public:
  Writer(TapeMaker& maker, Tape& tape)
      : maker_(maker),
        tape_(tape),
        is_of_tensors_(maker.is_made_.size()),
        is_appended_(maker.is_made_.size()),
        bytes_(maker.is_made_.size()) {
    for (size_t at = 0; at < maker.registers_.size(); ++at) {
      if (maker.is_tensor_[at] != 0 && maker.registers_[at].is_plain) {
        is_of_tensors_[slot_of(maker.registers_[at].storage)] = 1;
      }
    }
  }

  // Whether all that records make dies, or is a tensor's: else somebody else has it.
  bool write() {
    for (size_t step = 0; step < maker_.steps_.size(); ++step) {
      if (maker_.steps_[step].is_called) {
        call(step);
      } else {
        append(step);
      }
    }
    die(maker_.steps_.size(), begin_records());
    lay_out();
    return storages_ == 0;
  }

 private:
  uint32_t slot_of(GenieStorage storage) const {
    return maker_.slot_of_.at(storage);
  }

  void call(size_t step) {
    record_ = maker_.steps_[step].records_end;
    Tape::Part& part = tape_.parts_.emplace_back();
    part.step = static_cast<int64_t>(step);
    maker_.each_result(step, [&](uint32_t at, const Register& found) {
      const uint32_t slot = found.is_plain ? slot_of(found.storage) : Key::NO_SLOT;
      part.given.push_back({at, slot, found.words});
    });
    die(step, part);
  }

  Tape::Part& begin_records() {
    if (tape_.parts_.empty() || tape_.parts_.back().step >= 0) {
      tape_.parts_.emplace_back().records_end = static_cast<uint32_t>(tape_.replayed_.size());
    }
    return tape_.parts_.back();
  }

  void append(size_t step) {
    Tape::Part& part = begin_records();
    for (; record_ < maker_.steps_[step].records_end; ++record_) {
      append(maker_.noticed_.records[record_], maker_.program_.site(step));
    }
    part.records_end = static_cast<uint32_t>(tape_.replayed_.size());
    maker_.each_result(step, [&](uint32_t at, const Register& found) {
      if (maker_.is_tensor_[at] != 0) {
        part.made.push_back(
            {at, slot_of(found.storage), found.dtype, found.sizes, found.strides, found.bytes});
      }
    });
    for (const Tape::Written& written : maker_.steps_[step].written) {
      if (maker_.is_tensor_[written.at] != 0) {
        part.written.push_back(written);
      }
    }
    for (const Program::Use& use : maker_.program_.uses(step)) {
      if (use.is_last && maker_.is_tensor_[use.at] != 0) {
        part.dropped.push_back(use.at);
      }
    }
    die(step, part);
  }

  void append(const Noticed::Record& record, uint32_t site) {
    auto& named = named_.emplace_back();
    for (const GenieStorage storage : record.storages) {
      named.push_back(slot_of(storage));
    }
    freed_.emplace_back();
    for (size_t i = 0; i < record.fresh_bytes.size(); ++i) {
      make(slot_of(record.first_fresh + i), record.fresh_bytes[i]);
    }
    appended_.push_back(&record);
    GenieReplayed replayed{};
    replayed.call = record.call;
    replayed.call.storages = nullptr;
    replayed.call.n_storages = 0;
    replayed.first_fresh = record.fresh_bytes.empty() ? 0 : slot_of(record.first_fresh);
    replayed.n_fresh = static_cast<uint32_t>(record.fresh_bytes.size());
    replayed.site = site;
    tape_.replayed_.push_back(replayed);
  }

  // Puts what the records are made of in a row, as it will be read.
  void lay_out() {
    size_t bytes = 0, words = 0, slots = 0;
    for (size_t i = 0; i < appended_.size(); ++i) {
      bytes += appended_[i]->skeleton.size() + appended_[i]->result_skeleton.size();
      words += appended_[i]->params.size() + appended_[i]->data.size() +
          appended_[i]->result_params.size();
      slots += named_[i].size() + freed_[i].size();
    }
    // No pointer into them may change.
    tape_.bytes_of_.reserve(bytes);
    tape_.words_of_.reserve(words);
    tape_.slots_of_.reserve(slots);
    const auto put = [](auto& into, const auto& from, auto& pointer, size_t& count) {
      count = from.size();
      pointer = into.data() + into.size();
      into.insert(into.end(), from.begin(), from.end());
    };
    for (size_t i = 0; i < appended_.size(); ++i) {
      const Noticed::Record& record = *appended_[i];
      GenieReplayed& replayed = tape_.replayed_[i];
      GenieCall& call = replayed.call;
      put(tape_.bytes_of_, record.skeleton, call.skeleton, call.skeleton_len);
      put(tape_.words_of_, record.params, call.params, call.n_params);
      put(tape_.words_of_, record.data, call.data, call.n_data);
      GenieResults& results = replayed.results;
      put(tape_.bytes_of_, record.result_skeleton, results.skeleton, results.skeleton_len);
      put(tape_.words_of_, record.result_params, results.params, results.n_params);
      put(tape_.slots_of_, named_[i], replayed.slots, replayed.n_slots);
      put(tape_.slots_of_, freed_[i], replayed.freed, replayed.n_freed);
    }
  }

  void make(uint32_t slot, uint64_t bytes) {
    is_appended_[slot] = 1;
    bytes_[slot] = bytes;
    if (is_of_tensors_[slot] != 0) {
      return;
    }
    held_ += bytes;
    ++storages_;
    Passing& passing = tape_.passing_;
    passing.bytes += bytes;
    ++passing.storages;
    passing.peak_bytes = std::max(passing.peak_bytes, held_);
    passing.peak_storages = std::max(passing.peak_storages, storages_);
  }

  // What died by the end of a step: the storage of a tensor when the last one goes; any other when a
  // record says so.
  void die(size_t step, Tape::Part& part) {
    for (; death_ < maker_.noticed_.freed.size(); ++death_) {
      const Noticed::Freed& freed = maker_.noticed_.freed[death_];
      if (freed.step > step) {
        break;
      }
      const auto found = maker_.slot_of_.find(freed.storage);
      if (found == maker_.slot_of_.end()) {
        continue;
      }
      const uint32_t slot = found->second;
      if (is_of_tensors_[slot] != 0) {
        part.released.push_back(slot);
      } else if (is_appended_[slot] != 0) {
        // With the last record, which made it or comes after that. Steps called since name none such.
        freed_.back().push_back(slot);
        held_ -= bytes_[slot];
        --storages_;
      }
    }
  }

  TapeMaker& maker_;
  Tape& tape_;
  // By slot.
  std::vector<uint8_t> is_of_tensors_, is_appended_;
  std::vector<uint64_t> bytes_;
  // By record that is appended again.
  std::vector<const Noticed::Record*> appended_;
  std::vector<std::vector<uint32_t>> named_, freed_;
  size_t record_ = 0, death_ = 0;
  // Of storages without tensors.
  uint64_t held_ = 0, storages_ = 0;
};

}  // namespace genie::replay
