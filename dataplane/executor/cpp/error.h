// Exceptions to fault codes.
#pragma once

#include <c10/util/Exception.h>

#include <new>
#include <string>

#include "skeleton.h"

namespace genie {

// Keeps the message for genie_last_error; gives `code`.
int fail(int code, std::string message);

// What is wrong with a call itself, as opposed to what an operator raised.
class ProtocolError : public std::exception {
 public:
  explicit ProtocolError(const char* what) : what_(what) {}
  const char* what() const noexcept override {
    return what_;
  }

 private:
  const char* what_;
};

// Runs `body` and turns what it throws into a code.
template <typename Body>
int guarded(Body&& body) {
  try {
    body();
    return 0;
  } catch (const ProtocolError& e) {
    return fail(code::Protocol, e.what());
  } catch (const c10::OutOfMemoryError& e) {
    return fail(code::OutOfMemory, e.what_without_backtrace());
  } catch (const c10::IndexError& e) {
    return fail(code::Index, e.what_without_backtrace());
  } catch (const c10::NotImplementedError& e) {
    return fail(code::NotImplemented, e.what_without_backtrace());
  } catch (const c10::ValueError& e) {
    return fail(code::Value, e.what_without_backtrace());
  } catch (const c10::TypeError& e) {
    return fail(code::Type, e.what_without_backtrace());
  } catch (const c10::LinAlgError& e) {
    return fail(code::LinAlg, e.what_without_backtrace());
  } catch (const c10::Error& e) {
    return fail(code::Operator, e.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return fail(code::OutOfMemory, "the machine has no memory left");
  } catch (const std::exception& e) {
    return fail(code::Operator, e.what());
  } catch (...) {
    return fail(code::Operator, "an exception of an unknown type");
  }
}

} // namespace genie
