# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0

# Warning policy of all our own targets.
add_library(refit_warnings INTERFACE)
target_compile_options(refit_warnings INTERFACE -Wall -Wextra -Wconversion -Wshadow)
if(REFIT_WERROR)
  target_compile_options(refit_warnings INTERFACE -Werror)
endif()

if(REFIT_SANITIZE)
  add_compile_options(-fsanitize=${REFIT_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${REFIT_SANITIZE})
endif()

# refit_add_library(name SOURCES ... DEPENDS ... [PRIVATE_DEPENDS ...])
# One library a folder: target refit_<name>, alias refit::<name>. DEPENDS is the folder's row of the
# dependency table in CONTRIBUTING.md; ci/lint/check_layers.py holds the includes to the same table.
function(refit_add_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPENDS;PRIVATE_DEPENDS")
  if(arg_SOURCES)
    add_library(refit_${name} STATIC ${arg_SOURCES})
    target_include_directories(refit_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
    target_link_libraries(refit_${name} PUBLIC ${arg_DEPENDS} PRIVATE refit_warnings refit_numeric_flags ${arg_PRIVATE_DEPENDS})
  else()
    add_library(refit_${name} INTERFACE)
    target_include_directories(refit_${name} INTERFACE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
    target_link_libraries(refit_${name} INTERFACE ${arg_DEPENDS})
  endif()
  add_library(refit::${name} ALIAS refit_${name})
endfunction()
