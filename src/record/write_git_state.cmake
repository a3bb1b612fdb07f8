# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
# cmake -DSOURCE_DIR=DIR -DOUTPUT=FILE -P write_git_state.cmake
# Writes commit and dirty flag of SOURCE_DIR as a header; leaves an equal file untouched.
set(commit unknown)
set(dirty false)
find_program(git_program git)
if(git_program)
  # safe.directory: a container often builds a checkout that another user owns, which git refuses otherwise.
  # --no-optional-locks: a build must not take the index lock from a git command running beside it.
  set(git ${git_program} -c safe.directory=${SOURCE_DIR} --no-optional-locks -C ${SOURCE_DIR})
  execute_process(COMMAND ${git} rev-parse --show-toplevel
    OUTPUT_VARIABLE top OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  get_filename_component(real_source ${SOURCE_DIR} REALPATH)
  # A source archive unpacked inside an unrelated repository must not borrow that repository's commit.
  if(NOT failed AND top STREQUAL real_source)
    execute_process(COMMAND ${git} rev-parse --verify HEAD
      OUTPUT_VARIABLE head OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
    if(NOT failed)
      set(commit ${head})
      execute_process(COMMAND ${git} status --porcelain
        OUTPUT_VARIABLE changes ERROR_QUIET RESULT_VARIABLE failed)
      if(NOT failed AND NOT changes STREQUAL "")
        set(dirty true)
      endif()
    endif()
  endif()
endif()

set(text "#pragma once
#define REFIT_GIT_COMMIT \"${commit}\"
#define REFIT_GIT_DIRTY ${dirty}
")
set(old "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} old)
endif()
if(NOT old STREQUAL text)
  file(WRITE ${OUTPUT} "${text}")
endif()
