// The Python side as the plugin sees it: planning a filter, and the versions. No Python types here.
//
// Every function takes the GIL by itself and may be called with or without it. Failures are
// std::runtime_error with a sentence for the user.

#pragma once

#include "group_filter.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace cvrs {

// What vs_cvrs.plugin.planning.plan decided about one filter.
struct FilterPlan {
    GroupTable table;
    int width = 0;
    int height = 0;
    bool is_float = false;
    int bits = 0;
    std::int64_t rate_num = 0; // 0/0 where the rate is unknown
    std::int64_t rate_den = 0;
    std::int64_t duration_num = 0; // output over source frame duration, for clips of unknown rate
    std::int64_t duration_den = 0;
    Values properties;               // written to every output frame
    std::string index_property;      // written as the frame's number, when not empty
    std::int64_t first_index = -1;   // CVRSIndex that source frame 0 has; -1: not checked
    std::int64_t largest_source = 0; // frames of the largest group, before and after the filter
    std::int64_t largest_output = 0;
    bool aligns = false;  // the processor says where each group is
    bool endless = false; // the source clip states no length
    std::vector<std::string> warnings;
    std::unique_ptr<Processor> processor;
};

// A frame of the source clip: its CVRS properties, and its samples, plane after plane, where it has
// three planes of the same size.
struct FrameContents {
    Values properties;
    std::vector<std::byte> samples;
};
using ReadFrame = std::function<FrameContents(int index)>;

// `read_frame` is called without the GIL, while the plan is made.
FilterPlan plan_filter(const std::string &name, const Values &clip, const Values &arguments,
                       const ReadFrame &read_frame);

// Names and values for core.cvrs.Version().
using Versions = std::vector<std::pair<std::string, std::vector<std::string>>>;
Versions versions();

} // namespace cvrs
