/* What an extension module compiled by MinGW-w64 for 64-bit Windows must know of its CPython: sizes of
   types, and that functions come from a DLL. A CPython for Windows brings a pyconfig.h of its own; this
   one stands in where only a CPython for Linux is at hand, with the same headers else. */

#ifndef Py_CONFIG_H
#define Py_CONFIG_H

#define MS_WINDOWS
#define MS_WIN32
#define MS_WIN64
#define NT_THREADS
#define WITH_THREAD 1
#define HAVE_DECLSPEC_DLL
#define Py_ENABLE_SHARED 1

#define PLATFORM "win32"
#define SIZEOF_SHORT 2
#define SIZEOF_INT 4
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_FLOAT 4
#define SIZEOF_DOUBLE 8
#define SIZEOF_WCHAR_T 2
#define SIZEOF_SIZE_T 8
#define SIZEOF_VOID_P 8
#define SIZEOF_FPOS_T 8
#define SIZEOF_HKEY 8
#define SIZEOF_TIME_T 8
#define SIZEOF_PID_T 4
#define SIZEOF_OFF_T 4
#define ALIGNOF_MAX_ALIGN_T 8
#define ALIGNOF_LONG 4
#define ALIGNOF_SIZE_T 8

#define HAVE_WCHAR_H 1
#define HAVE_STDDEF_H 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_SYS_STAT_H 1
#define HAVE_ERRNO_H 1
#define STDC_HEADERS 1
#define HAVE_SSIZE_T 1

#endif
