// The Python module vs_cvrs._core, and the way from VapourSynth's threads into Python.

#include "bindings.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <condition_variable>
#include <mutex>
#include <stdexcept>

namespace py = pybind11;

namespace cvrs {

namespace {

// Counts the threads that are inside Python or wait for the GIL on our behalf.
//
// A thread that asks for the GIL of an interpreter that is being finalised never returns from the
// call. So an atexit function closes this gate, which waits for those inside and turns the others
// away. Python objects that are let go of later are leaked on purpose: the process is ending.
class Gate {
  public:
    bool enter() {
        const std::lock_guard lock(mutex_);
        if (closed_ || !Py_IsInitialized())
            return false;
        ++inside_;
        return true;
    }

    void leave() {
        {
            const std::lock_guard lock(mutex_);
            --inside_;
        }
        left_.notify_all();
    }

    // Call without the GIL, so that those inside can finish.
    void close() {
        std::unique_lock lock(mutex_);
        closed_ = true;
        left_.wait(lock, [this] { return inside_ == 0; });
    }

  private:
    std::mutex mutex_;
    std::condition_variable left_;
    int inside_ = 0;
    bool closed_ = false;
};

Gate &gate() {
    static Gate &instance = *std::make_unique<Gate>().release(); // never destroyed: threads outlive statics
    return instance;
}

class InsideGate {
  public:
    InsideGate() {
        if (!gate().enter())
            throw std::runtime_error("Python is not running or is shutting down");
    }
    ~InsideGate() { gate().leave(); }
    InsideGate(const InsideGate &) = delete;
    InsideGate &operator=(const InsideGate &) = delete;
};

// Text as scripts and files may hold it: bytes that are not UTF-8 become surrogates, as in file names.
py::object to_python(const std::string &text) {
    return py::reinterpret_steal<py::object>(
        PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "surrogateescape"));
}

template <typename Number> py::object to_python(const Number &number) { return py::cast(number); }

// The first line of what an object says of itself. Libraries append whole stack traces.
std::string first_line(const py::handle &object) {
    const auto utf8 =
        py::reinterpret_steal<py::bytes>(PyUnicode_AsEncodedString(py::str(object).ptr(), "utf-8", "backslashreplace"));
    if (!utf8)
        throw py::error_already_set();
    const std::string text = utf8;
    const auto begin = text.find_first_not_of(" \t\r\n");
    return begin == std::string::npos ? "" : text.substr(begin, text.find_first_of("\r\n", begin) - begin);
}

std::string describe(const py::error_already_set &error) {
    const std::string type = first_line(error.type().attr("__name__"));
    std::string text;
    try {
        text = first_line(error.value());
    } catch (const py::error_already_set &) {
        return type; // an error that cannot even say what it is
    }
    const bool for_users = error.matches(PyExc_ValueError) || error.matches(PyExc_RuntimeError) ||
                           error.matches(PyExc_OSError) || error.matches(PyExc_MemoryError);
    if (for_users && !text.empty())
        return text;
    return text.empty() ? type : type + ": " + text;
}

// Run `call` with the GIL; Python exceptions come out as std::runtime_error.
template <typename Call> auto with_python(Call &&call) {
    const InsideGate inside;
    const py::gil_scoped_acquire gil;
    try {
        return call();
    } catch (const py::error_already_set &error) {
        throw std::runtime_error(describe(error));
    } catch (const py::builtin_exception &error) {
        throw std::runtime_error(error.what());
    }
}

// Hold a Python object where its last reference may go in any thread, GIL or not, at any time.
std::shared_ptr<py::object> share(py::object object) {
    return {std::make_unique<py::object>(std::move(object)).release(), [](py::object *held) {
                const std::unique_ptr<py::object> owner(held);
                if (gate().enter()) {
                    {
                        const py::gil_scoped_acquire gil;
                        *owner = py::object();
                    }
                    gate().leave();
                } else {
                    owner->release();
                }
            }};
}

py::object &object_of(const std::shared_ptr<void> &shared) { return *static_cast<py::object *>(shared.get()); }

// A vs_cvrs.plugin.alignment.Unit.
Unit to_unit(const py::object &found) {
    const auto frames = [&found](const char *field) { return found.attr(field).cast<std::vector<std::int64_t>>(); };
    Unit unit;
    unit.output_begin = found.attr("output").attr("start").cast<std::int64_t>();
    unit.sources = frames("sources");
    unit.made = found.attr("made").cast<std::int64_t>();
    unit.shown = frames("shown");
    unit.nearest = frames("nearest");
    unit.found = share(found);
    return unit;
}

class PythonProcessor final : public Processor {
  public:
    explicit PythonProcessor(py::object processor) : processor_(share(std::move(processor))) {}

    Memory allocate(std::size_t bytes) override {
        return with_python([&] {
            auto array = py::array_t<std::uint8_t, py::array::c_style>(processor_->attr("allocate")(bytes));
            auto *const data = reinterpret_cast<std::byte *>(array.mutable_data());
            if (static_cast<std::size_t>(array.nbytes()) != bytes)
                throw std::runtime_error("the group buffer has the wrong size");
            return Memory{data, bytes, share(std::move(array))};
        });
    }

    Placement place(std::int64_t output, std::int64_t first, const Memory &frames, std::int64_t count) override {
        return with_python([&] {
            const py::tuple said = processor_->attr("place")(output, first, object_of(frames.owner), count);
            Placement placed;
            placed.look = {said[1].cast<std::int64_t>(), said[2].cast<std::int64_t>()};
            if (!said[0].is_none())
                placed.unit = to_unit(said[0]);
            return placed;
        });
    }

    Verdict process(const Unit &unit, const std::vector<std::int64_t> &cuts, const Memory &source,
                    const Memory &output) override {
        return with_python([&] {
            const py::object found = unit.found ? object_of(unit.found) : py::none();
            const py::object verdict =
                processor_->attr("process")(unit.output_begin, found, object_of(source.owner), unit.sources.size(),
                                            object_of(output.owner), unit.made, cuts);
            return Verdict{verdict.attr("intact").cast<std::optional<bool>>(),
                           verdict.attr("warning").cast<std::string>(), verdict.attr("properties").cast<Values>()};
        });
    }

  private:
    const std::shared_ptr<py::object> processor_;
};

py::dict to_dict(const Values &values) {
    py::dict result;
    for (const auto &[key, value] : values) {
        const auto &name = key;
        std::visit([&](const auto &v) { result[py::str(name)] = to_python(v); }, value);
    }
    return result;
}

// Close the gate before the interpreter begins to be taken down. Registered once, when Python is in use.
void close_gate_at_exit() {
    static bool registered = false; // guarded by the GIL
    if (registered)
        return;
    registered = true;
    py::module_::import("atexit").attr("register")(py::cpp_function([] {
        const py::gil_scoped_release release;
        gate().close();
    }));
}

} // namespace

FilterPlan plan_filter(const std::string &name, const Values &clip, const Values &arguments,
                       const ReadFrame &read_frame) {
    return with_python([&] {
        close_gate_at_exit();
        const py::cpp_function read([&read_frame](int index) {
            const FrameContents contents = [&] {
                const py::gil_scoped_release release; // the frame may need Python in another thread
                return read_frame(index);
            }();
            const auto *const samples = reinterpret_cast<const char *>(contents.samples.data());
            return py::make_tuple(to_dict(contents.properties), py::bytes(samples, contents.samples.size()));
        });
        const py::object plan =
            py::module_::import("vs_cvrs.plugin.planning").attr("plan")(name, to_dict(clip), to_dict(arguments), read);
        const py::object table = plan.attr("table");
        const auto indices = [&table](const char *field) {
            const auto array = py::array_t<std::int64_t, py::array::c_style>(table.attr(field));
            return std::vector<std::int64_t>(array.data(), array.data() + array.size());
        };
        const auto frames = [&table](const char *field) { return table.attr(field).cast<std::int64_t>(); };
        FilterPlan result;
        result.table = {indices("source_begin"), indices("output_begin"), indices("nearest_source"),
                        frames("source_head"),   frames("output_head"),   frames("source_frames"),
                        frames("output_frames"), frames("source_end"),    frames("output_end")};
        std::tie(result.largest_source, result.largest_output) =
            plan.attr("largest").cast<std::pair<std::int64_t, std::int64_t>>();
        result.aligns = plan.attr("aligns").cast<bool>();
        result.endless = plan.attr("endless").cast<bool>();
        result.width = plan.attr("width").cast<int>();
        result.height = plan.attr("height").cast<int>();
        result.is_float = plan.attr("is_float").cast<bool>();
        result.bits = plan.attr("bits").cast<int>();
        std::tie(result.rate_num, result.rate_den) = plan.attr("rate").cast<std::pair<std::int64_t, std::int64_t>>();
        std::tie(result.duration_num, result.duration_den) =
            plan.attr("duration_factor").cast<std::pair<std::int64_t, std::int64_t>>();
        result.properties = plan.attr("properties").cast<Values>();
        result.index_property = plan.attr("index_property").cast<std::string>();
        result.first_index = plan.attr("first_index").cast<std::int64_t>();
        result.warnings = plan.attr("warnings").cast<std::vector<std::string>>();
        result.processor = std::make_unique<PythonProcessor>(plan.attr("processor"));
        return result;
    });
}

Versions versions() {
    return with_python([] {
        close_gate_at_exit();
        Versions result;
        for (const auto &item : py::module_::import("vs_cvrs.plugin.planning").attr("versions")().cast<py::dict>())
            result.emplace_back(item.first.cast<std::string>(), item.second.cast<std::vector<std::string>>());
        return result;
    });
}

} // namespace cvrs

PYBIND11_MODULE(_core, module) {
    module.doc() = "The compiled half of vs_cvrs: VapourSynth loads it as the plugin behind core.cvrs.";
    module.attr("__version__") = CVRS_VERSION;
}
