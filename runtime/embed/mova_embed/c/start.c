/* Python within this process: started once, with every path told, and with nobody's signal handlers touched. */
#define _GNU_SOURCE 1 /* dladdr; as Python.h defines it */
#include <Python.h>

#include "inside.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "facts.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pid_t process;
static char why[512]; /* it did not start; "" if it did */

static int failed(PyStatus status) {
  if (!PyStatus_Exception(status)) return 0;
  snprintf(why, sizeof why, "Python of %s does not start: %s", MOVA_HOME, status.err_msg ? status.err_msg : "it exits");
  return 1;
}

static PyStatus add(PyWideStringList *list, const char *text) {
  wchar_t *wide = Py_DecodeLocale(text, NULL);
  if (wide == NULL) return PyStatus_NoMemory();
  PyStatus status = PyWideStringList_Append(list, wide);
  PyMem_RawFree(wide);
  return status;
}

/* As the Python that built the library is: not what PATH, the environment or a neighbouring pyvenv.cfg say. */
static int initialise(void) {
  PyPreConfig before;
  PyPreConfig_InitIsolatedConfig(&before); /* the locale stays the program's */
  before.utf8_mode = 1;
  if (failed(Py_PreInitialize(&before))) return 0;
  PyConfig config;
  PyConfig_InitIsolatedConfig(&config); /* no PYTHON* variable counts, and no signal handler is installed */
  config.site_import = 0;
  config.pathconfig_warnings = 0;
  const struct {
    wchar_t **field;
    const char *value;
  } paths[] = {{&config.home, MOVA_HOME},
               {&config.program_name, MOVA_EXECUTABLE},
               {&config.executable, MOVA_EXECUTABLE},
               {&config.base_executable, MOVA_EXECUTABLE},
               {&config.prefix, MOVA_PREFIX},
               {&config.exec_prefix, MOVA_PREFIX},
               {&config.base_prefix, MOVA_HOME},
               {&config.base_exec_prefix, MOVA_HOME}};
  int wrong = 0;
  for (size_t i = 0; i < sizeof paths / sizeof *paths && !wrong; i++)
    wrong = failed(PyConfig_SetBytesString(&config, paths[i].field, paths[i].value));
  config.module_search_paths_set = 1;
  for (size_t i = 0; search_paths[i] != NULL && !wrong; i++)
    wrong = failed(add(&config.module_search_paths, search_paths[i]));
  if (!wrong) wrong = failed(Py_InitializeFromConfig(&config));
  PyConfig_Clear(&config);
  return !wrong;
}

/* Modules find Python's symbols also where the program loaded this library for itself alone, as plugins are. */
static void show_python_to_modules(void) {
  Dl_info python;
  if (dladdr((void *)(uintptr_t)&Py_IsInitialized, &python))
    dlopen(python.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL); /* kept open */
}

static void can_import(const char *name, int ours) {
  PyObject *module = PyImport_ImportModule(name), *kind, *error, *trace;
  Py_XDECREF(module);
  if (module != NULL) return;
  PyErr_Fetch(&kind, &error, &trace);
  PyObject *text = error ? PyObject_Str(error) : NULL;
  const char *told = text ? PyUnicode_AsUTF8(text) : NULL;
  const char *reason = told ? told : "no reason told";
  if (ours)
    snprintf(why, sizeof why, "Python of %s can't import %s (%s); build libmova again with the Python that has it",
             MOVA_PREFIX, name, reason);
  else
    snprintf(why, sizeof why, "the Python that runs in this program can't import %s (%s); libmova was built for that of %s",
             name, reason, MOVA_PREFIX);
  Py_XDECREF(text);
  Py_XDECREF(kind);
  Py_XDECREF(error);
  Py_XDECREF(trace);
  PyErr_Clear();
}

static void start(void) {
  process = getpid();
  show_python_to_modules();
  int ours = !Py_IsInitialized(); /* else the program is Python itself, or has its own */
  if (ours && !initialise()) return;
  PyGILState_STATE state = ours ? PyGILState_UNLOCKED : PyGILState_Ensure();
  const char *const needed[] = {"_cffi_backend", "mova_embed.boundary"};
  for (size_t i = 0; i < sizeof needed / sizeof *needed && !*why; i++) can_import(needed[i], ours);
  if (ours)
    PyEval_SaveThread();
  else
    PyGILState_Release(state);
  if (!*why && mova_inner_ready() != 1)
    snprintf(why, sizeof why, "Python of %s does not take calls: see standard error", MOVA_PREFIX);
}

mova_status mova_start(void) {
  pthread_once(&once, start);
  if (*why) return mova_fail(MOVA_PYTHON, "%s", why);
  if (getpid() != process)
    return mova_fail(MOVA_PYTHON, "libmova was in use before this process was forked; start a program anew instead");
  return MOVA_OK;
}

mova_status mova_init(void) {
  return mova_start();
}
