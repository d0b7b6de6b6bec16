"""How other build systems find the library: pkg-config's file and CMake's. All paths in them follow the folder."""

from __future__ import annotations


def pkg_config(version: str) -> str:
    """mova.pc."""
    return f"""\
prefix=${{pcfiledir}}/../..
includedir=${{prefix}}/include
libdir=${{prefix}}/lib

Name: mova
Description: MoVA's runtime, a vision-language model with a mixture of vision experts
Version: {version}
Cflags: -I${{includedir}}
Libs: -L${{libdir}} -lmova -Wl,-rpath,${{libdir}}
"""


def cmake_config() -> str:
    """mova-config.cmake: the targets mova::mova (C) and mova::cpp (mova.hpp, C++17)."""
    return """\
get_filename_component(_mova_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET mova::mova)
  add_library(mova::mova SHARED IMPORTED)
  set_target_properties(mova::mova PROPERTIES
    IMPORTED_LOCATION "${_mova_prefix}/lib/libmova.so"
    IMPORTED_SONAME "libmova.so"
    INTERFACE_INCLUDE_DIRECTORIES "${_mova_prefix}/include")
  add_library(mova::cpp INTERFACE IMPORTED)
  set_target_properties(mova::cpp PROPERTIES
    INTERFACE_LINK_LIBRARIES mova::mova
    INTERFACE_COMPILE_FEATURES cxx_std_17)
endif()
unset(_mova_prefix)
"""


def cmake_version(version: str) -> str:
    """mova-config-version.cmake: fits who asks for this version or an older one of the same major number."""
    major = version.split(".")[0]
    return f"""\
set(PACKAGE_VERSION "{version}")
if(PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION OR NOT PACKAGE_FIND_VERSION_MAJOR STREQUAL "{major}")
  set(PACKAGE_VERSION_COMPATIBLE FALSE)
else()
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
  if(PACKAGE_FIND_VERSION STREQUAL PACKAGE_VERSION)
    set(PACKAGE_VERSION_EXACT TRUE)
  endif()
endif()
if(NOT PACKAGE_FIND_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
"""


def compile_flags(prefix: str) -> str:
    """For a compiler's command line; the folder's name in quotes where it needs them is the caller's affair."""
    return f"-I{prefix}/include"


def link_flags(prefix: str) -> str:
    """For the linker's; a program finds the library where it is now."""
    return f"-L{prefix}/lib -lmova -Xlinker -rpath -Xlinker {prefix}/lib"
