# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0

# Whether the CUDA kernels are built: REFIT_CUDA, else REFIT_CUDA_OFF_REASON. nvcc is called by a rule of our own
# and not as a language of CMake: CMake 3.25 tests a compiler with an architecture that CUDA 13 no longer knows, and
# that test costs more seconds than compiling the kernels.
set(REFIT_CUDA FALSE)
set(REFIT_CUDA_OFF_REASON "")
# The numeric contract (kernels/README.md) as nvcc spells it; machine code for Hopper, PTX for all others from Ampere on.
# Not compressed, so that a test can read which instructions the PTX has.
set(REFIT_NVCC_FLAGS -std=c++20 -O3 -gencode arch=compute_90,code=sm_90 -gencode arch=compute_80,code=compute_80
    --fmad=false --prec-div=true --prec-sqrt=true --ftz=false --expt-relaxed-constexpr --no-compress)

get_filename_component(REFIT_SOURCE_ROOT ${CMAKE_CURRENT_LIST_DIR}/../.. ABSOLUTE)

function(refit_find_cuda)
  set(reason "")
  if(REFIT_ENABLE_CUDA STREQUAL "OFF")
    set(reason "configured with REFIT_ENABLE_CUDA=OFF")
  elseif(REFIT_SANITIZE AND REFIT_ENABLE_CUDA STREQUAL "AUTO")
    set(reason "this build has sanitizers (REFIT_ENABLE_CUDA=ON builds it there too)")
  else()
    find_program(REFIT_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
    if(NOT REFIT_NVCC)
      set(reason "no nvcc was found (CUDA_HOME or REFIT_NVCC names one)")
    endif()
  endif()
  if(NOT reason)
    get_filename_component(nvcc "${REFIT_NVCC}" REALPATH)
    get_filename_component(toolkit "${nvcc}" DIRECTORY)
    get_filename_component(toolkit "${toolkit}" DIRECTORY)
    find_library(REFIT_CUDART_STATIC cudart_static HINTS ${toolkit} PATH_SUFFIXES lib64 lib targets/x86_64-linux/lib)
    find_path(REFIT_CUDA_INCLUDE cuda_runtime_api.h HINTS ${toolkit} PATH_SUFFIXES include targets/x86_64-linux/include)
    if(NOT REFIT_CUDART_STATIC OR NOT REFIT_CUDA_INCLUDE)
      set(reason "${REFIT_NVCC} is there, libcudart_static.a or cuda_runtime_api.h of ${toolkit} is not")
    elseif(NOT REFIT_NVCC_WORKS STREQUAL "${REFIT_NVCC} ${CMAKE_CXX_COMPILER}")
      # Asked once a build folder and pair of compilers: nvcc accepts only some host compilers.
      set(probe ${CMAKE_BINARY_DIR}/CMakeFiles/refit_nvcc_probe.cu)
      file(WRITE ${probe} "#include <bit>\n__global__ void probe(float* x) { x[0] = std::bit_cast<float>(1); }\n")
      execute_process(COMMAND ${REFIT_NVCC} -ccbin ${CMAKE_CXX_COMPILER} ${REFIT_NVCC_FLAGS} -c ${probe} -o ${probe}.o
        RESULT_VARIABLE code OUTPUT_VARIABLE said ERROR_VARIABLE said)
      if(code EQUAL 0)
        set(REFIT_NVCC_WORKS "${REFIT_NVCC} ${CMAKE_CXX_COMPILER}" CACHE INTERNAL "The pair that compiled a kernel")
      else()
        string(STRIP "${said}" said)
        string(REGEX REPLACE "[\r\n].*" "" said "${said}")
        string(REPLACE "\"" "'" said "${said}")
        set(reason "${REFIT_NVCC} cannot compile a kernel: ${said}")
      endif()
    endif()
  endif()
  if(reason)
    if(REFIT_ENABLE_CUDA STREQUAL "ON")
      message(FATAL_ERROR "REFIT_ENABLE_CUDA=ON: ${reason}")
    endif()
    set(REFIT_CUDA_OFF_REASON "${reason}" PARENT_SCOPE)
    message(STATUS "CUDA kernels: not built: ${reason}")
  else()
    set(REFIT_CUDA TRUE PARENT_SCOPE)
    message(STATUS "CUDA kernels: built with ${REFIT_NVCC}")
  endif()
endfunction()
refit_find_cuda()

# refit_cuda_object(OUTPUT_VARIABLE SOURCE): a rule that compiles one .cu file with the numeric flags; the variable gets
# the object file, a source of whatever target lists it.
function(refit_cuda_object variable source)
  get_filename_component(name ${source} NAME)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
  if(REFIT_WERROR)
    set(werror -Werror all-warnings)
  endif()
  add_custom_command(OUTPUT ${object}
    COMMAND ${REFIT_CCACHE} ${REFIT_NVCC} -ccbin ${CMAKE_CXX_COMPILER} ${REFIT_NVCC_FLAGS} ${werror}
      -Xcompiler=-Wall,-Wextra,-ffp-contract=off -I ${REFIT_SOURCE_ROOT} -MD -MF ${object}.d -MT ${object}
      -c ${CMAKE_CURRENT_SOURCE_DIR}/${source} -o ${object}
    DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${source} DEPFILE ${object}.d VERBATIM
    COMMENT "Building CUDA object ${source}")
  set(${variable} ${object} PARENT_SCOPE)
endfunction()
