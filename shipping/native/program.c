/* `engram` of a packed folder: CPython, embedded, that runs one program from the folder this file is in.

   It reads no PYTHON... variable and no file outside its folder, so that nothing on the machine changes what runs. Its
   dynamic loader (PT_INTERP) is the folder's own, and so are all its libraries (RPATH): the machine's libc, whichever it
   is, is not used. */
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static const char *const PATHS[] = {"app", "packages", "lib/" PYTHON_NAME, "lib/" PYTHON_NAME "/lib-dynload"};

static char folder[PATH_MAX - 64];

static int find_folder(void) {
    ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (length <= 0) return -1;
    folder[length] = 0;
    *strrchr(folder, '/') = 0;
    return 0;
}

/* Locks the folder for as long as this process lives, so that the stub does not remove it (native/stub.c). */
static void hold_folder(void) {
    int opened = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (opened < 0) return;
    if (!flock(opened, LOCK_SH | LOCK_NB)) fcntl(opened, F_DUPFD_CLOEXEC, STDERR_FILENO + 1); /* stdin may be closed */
    close(opened);
}

static PyStatus configure(PyConfig *config, int argc, char **argv) {
    char path[PATH_MAX];
    PyStatus status = PyConfig_SetBytesArgv(config, argc, argv);
    if (PyStatus_Exception(status)) return status;
    config->install_signal_handlers = 1;
    config->site_import = 0;
    config->write_bytecode = 0;
    config->parse_argv = 0;
    status = PyConfig_SetBytesString(config, &config->home, folder);
    if (PyStatus_Exception(status)) return status;
    snprintf(path, sizeof path, "%s/engram", folder);
    status = PyConfig_SetBytesString(config, &config->executable, path);
    if (PyStatus_Exception(status)) return status;
    status = PyConfig_SetString(config, &config->run_module, L"engram");
    if (PyStatus_Exception(status)) return status;
    config->module_search_paths_set = 1;
    for (size_t i = 0; i < sizeof PATHS / sizeof *PATHS; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, PATHS[i]);
        wchar_t *wide = Py_DecodeLocale(path, NULL);
        if (!wide) return PyStatus_NoMemory();
        status = PyWideStringList_Append(&config->module_search_paths, wide);
        PyMem_RawFree(wide);
        if (PyStatus_Exception(status)) return status;
    }
    return Py_InitializeFromConfig(config);
}

int main(int argc, char **argv) {
    if (find_folder()) {
        fprintf(stderr, "engram cannot start: /proc/self/exe cannot be read (%s); mount /proc\n", strerror(errno));
        return 2;
    }
    hold_folder();
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    PyStatus status = Py_PreInitialize(&before);
    if (PyStatus_Exception(status)) Py_ExitStatusException(status);
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    status = configure(&config, argc, argv);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status)) Py_ExitStatusException(status);
    return Py_RunMain();
}
