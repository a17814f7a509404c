// `torch.classes.genie`: what genie/_replay.py makes programs with.
#include "backend.h"
#include "replay/program.h"
#include "replay/trace.h"

namespace genie {

void register_replay() {
  using replay::Program;
  using replay::Trace;
  static const auto trace = torch::class_<Trace>("genie", "Trace")
                                .def(torch::init<>())
                                .def("start", &Trace::start)
                                .def("stop", &Trace::stop)
                                .def("calls", &Trace::calls);
  static const auto program = torch::class_<Program>("genie", "Program")
                                  .def(torch::init<int64_t>())
                                  .def("add", &Program::add)
                                  .def("finish", &Program::finish)
                                  .def("run", &Program::run)
                                  .def("taped", &Program::taped);
}

}  // namespace genie
