#include "replay/tape_maker.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>

#include "allocator.h"
#include "backend.h"
#include "replay/program.h"
#include "replay/tape_writer.h"

namespace genie::replay {
namespace {

// Records that one tape has at most.
constexpr size_t kRecordsMax = 1 << 14;

// Whether a call of it does what its records say and nothing else: an operator of PyTorch's that nobody
// has given a kernel in Python.
bool is_told_by_records(const c10::OperatorHandle& op) {
  const std::string& name = op.schema().name();
  if (name.compare(0, 6, "aten::") != 0) {
    return false;
  }
  const std::string state = op.dumpState();
  for (size_t begin = 0; begin < state.size();) {
    const size_t end = std::min(state.find('\n', begin), state.size());
    const std::string line = state.substr(begin, end - begin);
    if (line.find(".py:") != std::string::npos && line.compare(0, 4, "Meta") != 0) {
      return false;
    }
    begin = end + 1;
  }
  return true;
}

}  // namespace

TapeMaker::TapeMaker(
    const Program& program,
    const Key& key,
    const std::vector<at::Tensor>& registers)
    : program_(program),
      words_(key.words),
      device_(key.device),
      registers_(registers.size()),
      steps_(program.size()),
      inputs_(program.inputs()) {
  for (size_t i = 0; i < inputs_; ++i) {
    registers_[i] = look(registers[i]);
  }
  for (size_t slot = 0; slot < key.storages.size(); ++slot) {
    slot_of_.emplace(key.storages[slot], static_cast<uint32_t>(slot));
  }
  is_made_.resize(key.storages.size());
}

TapeMaker::Register TapeMaker::look(const at::Tensor& tensor) {
  Register found;
  found.is_defined = tensor.defined();
  found.is_plain = is_plain(tensor);
  describe(tensor, found.words);
  if (found.is_plain) {
    found.is_view = tensor.is_view();
    found.storage = handle_of(tensor);
    found.bytes = tensor.storage().nbytes();
    found.dtype = tensor.scalar_type();
    found.offset = tensor.storage_offset();
    found.sizes = tensor.sizes().vec();
    found.strides = tensor.strides().vec();
  }
  return found;
}

std::vector<int64_t> TapeMaker::versions(const std::vector<at::Tensor>& registers) const {
  std::vector<int64_t> found;
  found.reserve(registers.size());
  for (const at::Tensor& tensor : registers) {
    found.push_back(tensor.defined() && !tensor.is_inference() ? tensor._version() : -1);
  }
  return found;
}

std::vector<int64_t> TapeMaker::metadata(
    size_t step,
    const std::vector<at::Tensor>& registers) const {
  std::vector<int64_t> found;
  for (const Program::Use& use : program_.uses(step)) {
    if (!use.is_last) {
      describe(registers[use.at], found);
    }
  }
  return found;
}

void TapeMaker::before(size_t step, const std::vector<at::Tensor>& registers) {
  noticed_.step = static_cast<uint32_t>(step);
  noticed_.is_odd = false;
  position_ = genie_position();
  if (program_.op(step).schema().is_mutable()) {
    versions_ = versions(registers);
    metadata_ = metadata(step, registers);
  }
}

void TapeMaker::after(size_t step, const std::vector<at::Tensor>& registers) {
  Step& of = steps_[step];
  of.records_end = noticed_.records.size();
  // What appends otherwise than by a record of an operator is called again. (Another thread's records
  // count too: it is called more often than it must be, then.)
  of.is_called = noticed_.is_odd || genie_position() - position_ != of.records_end - records_begin(step);
  if (program_.op(step).schema().is_mutable()) {
    const auto now = versions(registers);
    for (size_t at = 0; at < now.size(); ++at) {
      if (now[at] > versions_[at] && versions_[at] >= 0) {
        of.written.push_back(
            {static_cast<uint32_t>(at), static_cast<uint32_t>(now[at] - versions_[at])});
      }
    }
    // What it gives back is no new register: its shape, too, is part of what it did.
    of.is_called = of.is_called || metadata(step, registers) != metadata_;
  }
  each_result(step, [&](uint32_t at, Register& found) {
    const at::Tensor& tensor = registers[at];
    is_impossible_ = is_impossible_ || is_special(tensor) ||
        (is_remote(tensor) && tensor.device().index() != device_);
    if (!is_impossible_) {
      found = look(tensor);
    }
  });
}

// Whether a record of the step made the tensor's storage, and the tensor is the whole of it.
bool TapeMaker::is_made_by(size_t step, const Register& found) const {
  if (!found.is_plain || found.is_view || found.offset != 0) {
    return false;
  }
  for (size_t i = records_begin(step); i < steps_[step].records_end; ++i) {
    const Noticed::Record& record = noticed_.records[i];
    const GenieStorage nth = found.storage - record.first_fresh;
    if (found.storage >= record.first_fresh && nth < record.fresh_bytes.size()) {
      return record.fresh_bytes[nth] == found.bytes;
    }
  }
  return false;
}

// Numbers the storages, and finds which steps name others than those.
void TapeMaker::find_slots() {
  std::unordered_map<std::string, bool> is_told;
  const auto new_slot = [&](GenieStorage storage, bool is_made) {
    slot_of_.emplace(storage, static_cast<uint32_t>(is_made_.size()));
    is_made_.push_back(is_made ? 1 : 0);
  };
  size_t at = 0;
  for (size_t step = 0; step < steps_.size(); ++step) {
    Step& of = steps_[step];
    const c10::OperatorHandle& op = program_.op(step);
    const auto [told, is_new] = is_told.try_emplace(c10::toString(op.operator_name()), false);
    if (is_new) {
      told->second = is_told_by_records(op);
    }
    is_impossible_ = is_impossible_ || !told->second;
    for (const Program::Use& use : program_.uses(step)) {
      const Register& found = registers_[use.at];
      of.is_called = of.is_called || (found.is_defined && !found.is_plain);
    }
    each_result(step, [&](uint32_t /*at*/, const Register& found) {
      of.is_called = of.is_called || (found.is_defined && !found.is_plain);
    });
    for (; at < of.records_end; ++at) {
      const Noticed::Record& record = noticed_.records[at];
      for (const GenieStorage storage : record.storages) {
        of.is_called = of.is_called || !slot_of_.contains(storage);
      }
      for (size_t i = 0; i < record.fresh_bytes.size() && !of.is_called; ++i) {
        new_slot(record.first_fresh + i, true);
      }
    }
    each_result(step, [&](uint32_t /*at*/, const Register& found) {
      if (found.is_plain && !slot_of_.contains(found.storage)) {
        of.is_called = true;
        new_slot(found.storage, false);
      }
    });
  }
}

// Finds which registers need a tensor, and which steps must be called for it: from the outputs back.
void TapeMaker::find_called() {
  is_tensor_.assign(registers_.size(), 0);
  std::fill_n(is_tensor_.begin(), inputs_, 1);
  for (const int64_t output : program_.outputs()) {
    is_tensor_[static_cast<size_t>(output)] = 1;
  }
  for (size_t step = steps_.size(); step-- > 0;) {
    Step& of = steps_[step];
    each_result(step, [&](uint32_t at, const Register& found) {
      of.is_called = of.is_called || (is_tensor_[at] != 0 && !is_made_by(step, found));
    });
    if (!of.is_called) {
      continue;
    }
    for (const Program::Use& use : program_.uses(step)) {
      is_tensor_[use.at] = 1;
    }
    each_result(step, [&](uint32_t at, const Register& /*found*/) { is_tensor_[at] = 1; });
  }
}

std::shared_ptr<const Tape> TapeMaker::finish() && {
  is_impossible_ = is_impossible_ || noticed_.is_unforeseeable || noticed_.records.empty() ||
      noticed_.records.size() > kRecordsMax;
  if (is_impossible_) {
    return nullptr;
  }
  find_slots();
  if (is_impossible_) {
    return nullptr;
  }
  find_called();
  auto tape = std::make_shared<Tape>();
  if (!Writer(*this, *tape).write() || tape->replayed_.empty()) {
    return nullptr;
  }
  tape->words_ = std::move(words_);
  tape->is_made_ = std::move(is_made_);
  return tape;
}

}  // namespace genie::replay
