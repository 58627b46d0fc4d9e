// The VapourSynth plugin: the only file that knows VapourSynth's API.

#include "bindings.h"
#include "group_filter.h"
#include "keep_loaded.h"

#include <VSHelper4.h>
#include <VapourSynth4.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <string_view>

using namespace cvrs;

namespace {

constexpr std::string_view kPropertyPrefix = "CVRS";
constexpr const char *kIndexProperty = "CVRSIndex";
constexpr const char *kIntactProperty = "CVRSIntact";
constexpr const char *kFieldsProperty = "_FieldBased";           // VapourSynth's: 1 bottom, 2 top field first
constexpr const char *kSceneBeginsProperty = "_SceneChangePrev"; // VapourSynth's, as scene detectors write them
constexpr const char *kSceneEndsProperty = "_SceneChangeNext";
constexpr const char *kTimeProperty = "_AbsoluteTime";
constexpr std::int64_t kLargestTerm = std::int64_t{1} << 30; // two products of such terms can be added
constexpr std::int64_t kCachedSourceGroups = 2;              // the one that is made and the one that is read ahead

using Node = std::shared_ptr<VSNode>;
using ConstFrame = std::shared_ptr<const VSFrame>;

struct FilterFunction {
    const char *name;
    const char *arguments;
    bool refuses_fields; // takes progressive frames only
};

constexpr FilterFunction kDownsample = {
    "Downsample",
    "clip:vnode;fps:float:opt;fps_num:int:opt;fps_den:int:opt;factor_num:int:opt;factor_den:int:opt;"
    "scale:float:opt;width:int:opt;height:int:opt;"
    "model:data:opt;gop:int:opt;device:data:opt;precision:data:opt;max_memory:int:opt;stamp:int:opt;bits:int:opt;"
    "check:int:opt;headroom:int:opt;refine:int:opt;strength:data:opt;",
    true};
constexpr FilterFunction kUpsample = {
    "Upsample",
    "clip:vnode;fps:float:opt;fps_num:int:opt;fps_den:int:opt;factor_num:int:opt;factor_den:int:opt;"
    "scale:float:opt;width:int:opt;height:int:opt;length:int:opt;phase:int:opt;"
    "model:data:opt;gop:int:opt;device:data:opt;precision:data:opt;max_memory:int:opt;stamp:int:opt;strict:int:opt;"
    "bits:int:opt;",
    false};

ConstFrame adopt(const VSFrame *frame, const VSAPI *vsapi) {
    return {frame, [vsapi](const VSFrame *held) { vsapi->freeFrame(held); }};
}

// Everything a filter instance needs to serve frames.
struct Instance {
    const char *name;
    bool refuses_fields;
    Node node;
    VSVideoInfo source_info;
    VSVideoInfo info;
    FilterPlan plan; // its table and processor have gone to `filter`
    std::unique_ptr<GroupFilter> filter;
};

// One frame request, with the source frames that were requested there. `state` is what VapourSynth
// keeps of it: the first of those frames and the one after the last.
class Request final : public Host {
  public:
    Request(const Instance &instance, void **state, VSFrameContext *context, VSCore *core, const VSAPI *vsapi)
        : instance_(instance), state_(state), context_(context), core_(core), vsapi_(vsapi) {}

    Range requested() const override {
        return {reinterpret_cast<std::intptr_t>(state_[0]), reinterpret_cast<std::intptr_t>(state_[1])};
    }

    void request(Range sources) override {
        const Range there = requested();
        Range all = sources;
        if (there.begin < there.end)
            all = {std::min(there.begin, sources.begin), std::max(there.end, sources.end)};
        for (std::int64_t n = all.begin; n < all.end; ++n)
            if (n < there.begin || n >= there.end)
                vsapi_->requestFrameFilter(static_cast<int>(n), instance_.node.get(), context_);
        state_[0] = reinterpret_cast<void *>(static_cast<std::intptr_t>(all.begin));
        state_[1] = reinterpret_cast<void *>(static_cast<std::intptr_t>(all.end));
    }

    SourceFrame source(std::int64_t index) override {
        SourceFrame result;
        const ConstFrame taken = source_frame(index);
        const VSMap *const properties = vsapi_->getFramePropertiesRO(taken.get());
        check_index(index, properties);
        check_fields(index, properties);
        int absent = 0; // a property that is not there is 0
        result.begins_scene = vsapi_->mapGetInt(properties, kSceneBeginsProperty, 0, &absent) != 0;
        result.ends_scene = vsapi_->mapGetInt(properties, kSceneEndsProperty, 0, &absent) != 0;
        for (std::size_t plane = 0; plane < kPlanes; ++plane) {
            const int p = static_cast<int>(plane);
            result.planes[plane] = {reinterpret_cast<const std::byte *>(vsapi_->getReadPtr(taken.get(), p)),
                                    vsapi_->getStride(taken.get(), p)};
        }
        result.handle = taken;
        return result;
    }

    void done_with_sources() override {
        const Range there = requested();
        for (std::int64_t n = there.begin; n < there.end; ++n)
            vsapi_->releaseFrameEarly(instance_.node.get(), static_cast<int>(n), context_);
    }

    OutputFrame create(std::int64_t index, const Stands &stands) override {
        const VSVideoInfo &info = instance_.info;
        const ConstFrame source = source_frame(stands.like);
        VSFrame *const made = vsapi_->newVideoFrame(&info.format, info.width, info.height, source.get(), core_);
        OutputFrame result;
        result.handle = {made, [vsapi = vsapi_](void *held) { vsapi->freeFrame(static_cast<VSFrame *>(held)); }};
        write_properties(index, stands, vsapi_->getFramePropertiesRW(made));
        for (std::size_t plane = 0; plane < kPlanes; ++plane) {
            const int p = static_cast<int>(plane);
            result.planes[plane] = {reinterpret_cast<std::byte *>(vsapi_->getWritePtr(made, p)),
                                    vsapi_->getStride(made, p)};
        }
        return result;
    }

    void judged(const Verdict &verdict, const std::vector<OutputFrame> &frames) override {
        for (const OutputFrame &frame : frames) {
            VSMap *const map = vsapi_->getFramePropertiesRW(static_cast<VSFrame *>(frame.handle.get()));
            if (verdict.intact)
                vsapi_->mapSetInt(map, kIntactProperty, *verdict.intact, maReplace);
            write_values(verdict.properties, map);
        }
        if (!verdict.warning.empty())
            vsapi_->logMessage(mtWarning, (std::string(instance_.name) + ": " + verdict.warning).c_str(), core_);
    }

  private:
    ConstFrame source_frame(std::int64_t index) const {
        return adopt(vsapi_->getFrameFilter(static_cast<int>(index), instance_.node.get(), context_), vsapi_);
    }

    // A clip that still has its frame properties tells when it was cut or reordered.
    void check_index(std::int64_t index, const VSMap *properties) const {
        if (instance_.plan.first_index < 0)
            return;
        int error = 0;
        const std::int64_t found = vsapi_->mapGetInt(properties, kIndexProperty, 0, &error);
        const std::int64_t expected = instance_.plan.first_index + index;
        if (error == 0 && found != expected)
            throw std::runtime_error("frame " + std::to_string(index) + " of the clip has " + kIndexProperty + " " +
                                     std::to_string(found) + " where " + std::to_string(expected) +
                                     " belongs: the clip was cut or reordered after Downsample");
    }

    // The two fields of a frame are of different moments, which no low-rate frame shows at once.
    void check_fields(std::int64_t index, const VSMap *properties) const {
        if (!instance_.refuses_fields)
            return;
        int error = 0;
        const std::int64_t found = vsapi_->mapGetInt(properties, kFieldsProperty, 0, &error);
        if (error == 0 && (found == 1 || found == 2))
            throw std::runtime_error("frame " + std::to_string(index) + " of the clip is interlaced (" +
                                     kFieldsProperty + " " + std::to_string(found) +
                                     "); deinterlace it (BWDIF, QTGMC) or undo its telecine (VIVTC) first, or "
                                     "where it is progressive all the same, say so with std.SetFieldBased(clip, 0)");
    }

    void write_properties(std::int64_t index, const Stands &stands, VSMap *map) {
        const FilterPlan &plan = instance_.plan;
        for (int i = vsapi_->mapNumKeys(map) - 1; i >= 0; --i) {
            const std::string key = vsapi_->mapGetKey(map, i);
            if (key.compare(0, kPropertyPrefix.size(), kPropertyPrefix) == 0)
                vsapi_->mapDeleteKey(map, key.c_str());
        }
        vsapi_->mapDeleteKey(map, "_ColorRange"); // the old name of _Range, with the opposite numbering
        vsapi_->mapSetInt(map, "_Range", 1, maReplace);
        vsapi_->mapSetInt(map, "_Matrix", 0, maReplace);
        // A cut lies before or behind one frame, and one frame has its source's time.
        if (!stands.first) {
            vsapi_->mapDeleteKey(map, kSceneBeginsProperty);
            vsapi_->mapDeleteKey(map, kTimeProperty);
        }
        if (!stands.last)
            vsapi_->mapDeleteKey(map, kSceneEndsProperty);
        write_duration(stands, map);
        write_values(plan.properties, map);
        if (!plan.index_property.empty())
            vsapi_->mapSetInt(map, plan.index_property.c_str(), index, maReplace);
    }

    void write_values(const Values &values, VSMap *map) const {
        for (const auto &[key, value] : values) {
            if (const auto *number = std::get_if<std::int64_t>(&value))
                vsapi_->mapSetInt(map, key.c_str(), *number, maReplace);
            else if (const auto *real = std::get_if<double>(&value))
                vsapi_->mapSetFloat(map, key.c_str(), *real, maReplace);
            else if (const auto *text = std::get_if<std::string>(&value))
                vsapi_->mapSetData(map, key.c_str(), text->data(), static_cast<int>(text->size()), dtUtf8, maReplace);
        }
    }

    void write_duration(const Stands &stands, VSMap *map) {
        const FilterPlan &plan = instance_.plan;
        Duration lasts = {plan.rate_den, plan.rate_num};
        if (lasts.den == 0) {
            Duration one = duration(map);
            // Players do not know how long their last frame is: as long as the one before.
            if (one.den == 0)
                one = before_;
            if (one.den == 0)
                return;
            before_ = one;
            const bool lowers = plan.duration_num > plan.duration_den;
            lasts = lowers ? together(stands.instead, one) : Duration();
            if (lasts.den == 0) {
                lasts = one;
                vsh::muldivRational(&lasts.num, &lasts.den, plan.duration_num, plan.duration_den);
            }
        }
        vsapi_->mapSetInt(map, "_DurationNum", lasts.num, maReplace);
        vsapi_->mapSetInt(map, "_DurationDen", lasts.den, maReplace);
    }

    // In seconds; 0/0: unknown.
    struct Duration {
        std::int64_t num = 0;
        std::int64_t den = 0;
    };

    Duration duration(const VSMap *map) const {
        int no_num = 0, no_den = 0;
        const std::int64_t num = vsapi_->mapGetInt(map, "_DurationNum", 0, &no_num);
        const std::int64_t den = vsapi_->mapGetInt(map, "_DurationDen", 0, &no_den);
        return no_num || no_den || num <= 0 || den <= 0 ? Duration() : Duration{num, den};
    }

    // Of these source frames one after another; one that states none lasts as long as the one before.
    // Unknown where the terms get too large to add.
    Duration together(const std::vector<std::int64_t> &sources, Duration one) const {
        const auto fits = [](const Duration &d) { return std::max(d.num, d.den) < kLargestTerm; };
        Duration sum = {0, 1};
        for (const std::int64_t n : sources) {
            const Duration own = duration(vsapi_->getFramePropertiesRO(source_frame(n).get()));
            if (own.den != 0)
                one = own;
            if (!fits(sum) || !fits(one))
                return {};
            vsh::addRational(&sum.num, &sum.den, one.num, one.den);
        }
        return sum.num == 0 ? Duration() : sum;
    }

    const Instance &instance_;
    void **const state_;
    VSFrameContext *const context_;
    VSCore *const core_;
    const VSAPI *const vsapi_;
    Duration before_; // of the source frame that the last frame was made like
};

const VSFrame *VS_CC get_frame(int n, int activation, void *data, void **state, VSFrameContext *context, VSCore *core,
                               const VSAPI *vsapi) {
    const auto &instance = *static_cast<const Instance *>(data);
    const auto give = [vsapi](const std::shared_ptr<void> &frame) {
        return vsapi->addFrameRef(static_cast<const VSFrame *>(frame.get()));
    };
    try {
        if (activation == arInitial) {
            if (const auto frame = instance.filter->cached(n))
                return give(frame);
            Request(instance, state, context, core, vsapi).request(instance.filter->sources_of(n));
        } else if (activation == arAllFramesReady) {
            Request request(instance, state, context, core, vsapi);
            if (const auto frame = instance.filter->make(n, request))
                return give(frame);
        }
    } catch (const std::exception &error) {
        vsapi->setFilterError((std::string(instance.name) + ": " + error.what()).c_str(), context);
    }
    return nullptr;
}

const VSFrame *VS_CC pass_frame(int n, int activation, void *data, void **, VSFrameContext *context, VSCore *,
                                const VSAPI *vsapi) {
    VSNode *const node = static_cast<Node *>(data)->get();
    if (activation == arInitial)
        vsapi->requestFrameFilter(n, node, context);
    return activation == arAllFramesReady ? vsapi->getFrameFilter(n, node, context) : nullptr;
}

void VS_CC free_node(void *data, VSCore *, const VSAPI *) {
    const std::unique_ptr<Node> node(static_cast<Node *>(data));
}

Node own(VSNode *node, const VSAPI *vsapi) {
    return {node, [vsapi](VSNode *held) { vsapi->freeNode(held); }};
}

// The clip behind a cache that holds a whole group. All requests for frames of a group ask for all of
// its source frames; VapourSynth's own cache may be smaller, and would have them made again.
Node cache_frames(const Node &source, std::int64_t frames, const std::string &name, VSCore *core, const VSAPI *vsapi) {
    const VSFilterDependency dependency = {source.get(), rpStrictSpatial};
    VSNode *const node =
        vsapi->createVideoFilter2(name.c_str(), vsapi->getVideoInfo(source.get()), pass_frame, free_node, fmParallel,
                                  &dependency, 1, std::make_unique<Node>(source).release(), core);
    if (!node)
        throw std::runtime_error("VapourSynth refuses a cache for the source clip");
    vsapi->setCacheMode(node, cmForceEnable);
    vsapi->setCacheOptions(node, 1, static_cast<int>(frames), 0);
    return own(node, vsapi);
}

void VS_CC free_instance(void *data, VSCore *, const VSAPI *) {
    const std::unique_ptr<Instance> instance(static_cast<Instance *>(data));
}

// The values of a map that are single numbers or texts, of keys that begin with `prefix`.
Values read_values(const VSMap *map, std::string_view prefix, const VSAPI *vsapi) {
    Values values;
    for (int i = 0; i < vsapi->mapNumKeys(map); ++i) {
        const char *const key = vsapi->mapGetKey(map, i);
        if (std::string_view(key).compare(0, prefix.size(), prefix) != 0)
            continue;
        switch (vsapi->mapGetType(map, key)) {
        case ptInt:
            values[key] = vsapi->mapGetInt(map, key, 0, nullptr);
            break;
        case ptFloat:
            values[key] = vsapi->mapGetFloat(map, key, 0, nullptr);
            break;
        case ptData:
            values[key] = std::string(vsapi->mapGetData(map, key, 0, nullptr),
                                      static_cast<std::size_t>(vsapi->mapGetDataSize(map, key, 0, nullptr)));
            break;
        default:
            break;
        }
    }
    return values;
}

Values describe(const VSVideoInfo &info, const VSAPI *vsapi) {
    char format[32] = "a variable format";
    if (info.format.colorFamily != cfUndefined)
        vsapi->getVideoFormatName(&info.format, format);
    return {{"width", std::int64_t{info.width}},
            {"height", std::int64_t{info.height}},
            {"frames", std::int64_t{info.numFrames}},
            {"rate_num", info.fpsNum},
            {"rate_den", info.fpsDen},
            {"is_constant", std::int64_t{vsh::isConstantVideoFormat(&info)}},
            {"is_rgb", std::int64_t{info.format.colorFamily == cfRGB}},
            {"is_float", std::int64_t{info.format.sampleType == stFloat}},
            {"bits", std::int64_t{info.format.bitsPerSample}},
            {"format_name", std::string(format)}};
}

FrameShape shape_of(const VSVideoInfo &info) {
    return {static_cast<std::size_t>(info.width) * static_cast<std::size_t>(info.format.bytesPerSample),
            static_cast<std::size_t>(info.height)};
}

FrameContents read_frame(int index, const Node &node, const VSVideoInfo &info, const VSAPI *vsapi) {
    char message[1024] = "";
    const VSFrame *const frame = vsapi->getFrame(index, node.get(), message, sizeof(message));
    if (!frame)
        throw std::runtime_error("the clip's frame " + std::to_string(index) + " could not be read: " + message);
    const ConstFrame owner = adopt(frame, vsapi);
    FrameContents result;
    result.properties = read_values(vsapi->getFramePropertiesRO(frame), kPropertyPrefix, vsapi);
    if (info.format.colorFamily == cfRGB) {
        ConstPlanes planes;
        for (std::size_t plane = 0; plane < kPlanes; ++plane) {
            const int p = static_cast<int>(plane);
            planes[plane] = {reinterpret_cast<const std::byte *>(vsapi->getReadPtr(frame, p)),
                             vsapi->getStride(frame, p)};
        }
        result.samples.resize(shape_of(info).bytes());
        gather(planes, shape_of(info), result.samples.data());
    }
    return result;
}

// Enough groups for the frames that are requested at the same time, wherever in a group they lie.
std::size_t cached_groups(const GroupTable &table, VSCore *core, const VSAPI *vsapi) {
    VSCoreInfo info;
    vsapi->getCoreInfo(core, &info);
    const std::size_t groups = table.output_begin.size() - 1;
    const std::size_t group_frames =
        std::max<std::size_t>(1, static_cast<std::size_t>(table.output_begin.back()) / groups);
    return (static_cast<std::size_t>(info.numThreads) + group_frames - 1) / group_frames + 1;
}

std::unique_ptr<Instance> create_instance(const FilterFunction &function, const VSMap *in, VSCore *core,
                                          const VSAPI *vsapi) {
    auto instance = std::make_unique<Instance>();
    instance->name = function.name;
    instance->refuses_fields = function.refuses_fields;
    instance->node = own(vsapi->mapGetNode(in, "clip", 0, nullptr), vsapi);
    instance->source_info = *vsapi->getVideoInfo(instance->node.get());

    const Values arguments = read_values(in, "", vsapi);
    const auto read = [&](int index) { return read_frame(index, instance->node, instance->source_info, vsapi); };
    instance->plan = plan_filter(function.name, describe(instance->source_info, vsapi), arguments, read);

    FilterPlan &plan = instance->plan;
    VSVideoInfo &info = instance->info;
    if (!vsapi->queryVideoFormat(&info.format, cfRGB, plan.is_float ? stFloat : stInteger, plan.bits, 0, 0, core))
        throw std::runtime_error("VapourSynth refuses the output format");
    info.width = plan.width;
    info.height = plan.height;
    info.fpsNum = plan.rate_num;
    info.fpsDen = plan.rate_den;
    info.numFrames = static_cast<int>(plan.table.output_frames);
    GroupFilter::Options options;
    options.source = shape_of(instance->source_info);
    options.output = shape_of(info);
    options.largest_source = plan.largest_source;
    options.largest_output = plan.largest_output;
    options.aligns = plan.aligns;
    options.endless = plan.endless;
    options.cached_groups = cached_groups(plan.table, core, vsapi);
    instance->filter = std::make_unique<GroupFilter>(std::move(plan.table), options, std::move(plan.processor));
    instance->node = cache_frames(instance->node, kCachedSourceGroups * plan.largest_source,
                                  std::string(function.name) + " source", core, vsapi);
    for (const std::string &warning : plan.warnings)
        vsapi->logMessage(mtWarning, (std::string(function.name) + ": " + warning).c_str(), core);
    return instance;
}

void VS_CC create_filter(const VSMap *in, VSMap *out, void *data, VSCore *core, const VSAPI *vsapi) {
    const auto &function = *static_cast<const FilterFunction *>(data);
    try {
        auto instance = create_instance(function, in, core, vsapi);
        const VSFilterDependency source = {instance->node.get(), rpGeneral};
        const VSVideoInfo info = instance->info;
        vsapi->createVideoFilter(out, function.name, &info, get_frame, free_instance, fmParallelRequests, &source, 1,
                                 instance.release(), core);
    } catch (const std::exception &error) {
        vsapi->mapSetError(out, (std::string(function.name) + ": " + error.what()).c_str());
    }
}

void VS_CC version(const VSMap *, VSMap *out, void *, VSCore *, const VSAPI *vsapi) {
    try {
        for (const auto &[key, values] : versions()) {
            vsapi->mapSetEmpty(out, key.c_str(), ptData);
            for (const std::string &value : values)
                vsapi->mapSetData(out, key.c_str(), value.data(), static_cast<int>(value.size()), dtUtf8, maAppend);
        }
    } catch (const std::exception &error) {
        vsapi->mapSetError(out, (std::string("Version: ") + error.what()).c_str());
    }
}

} // namespace

VS_EXTERNAL_API(void) VapourSynthPluginInit2(VSPlugin *plugin, const VSPLUGINAPI *vspapi) {
    keep_loaded();
    vspapi->configPlugin("io.github.vs-cvrs", "cvrs", "Continuous space-time video resampling with hidden motion",
                         VS_MAKE_VERSION(CVRS_VERSION_MAJOR, CVRS_VERSION_MINOR), VAPOURSYNTH_API_VERSION, 0, plugin);
    for (const FilterFunction *function : {&kDownsample, &kUpsample})
        vspapi->registerFunction(function->name, function->arguments, "clip:vnode;", create_filter,
                                 const_cast<FilterFunction *>(function), plugin);
    vspapi->registerFunction("Version", "", "plugin:data;models:data[]:empty;torch:data;cupy:data;devices:data[];",
                             version, nullptr, plugin);
}
