#include "keep_loaded.h"

#ifdef _WIN32

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>

namespace cvrs {

void keep_loaded() noexcept {
    HMODULE self = nullptr;
    GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN,
                       reinterpret_cast<LPCWSTR>(&keep_loaded), &self);
}

} // namespace cvrs

#else

#include <dlfcn.h>

namespace cvrs {

void keep_loaded() noexcept {
    Dl_info self{};
    // RTLD_NOLOAD: it is there already. The handle is not given back; where a system ignores
    // RTLD_NODELETE, that alone keeps the library.
    if (dladdr(reinterpret_cast<const void *>(&keep_loaded), &self) != 0 && self.dli_fname)
        dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

} // namespace cvrs

#endif
