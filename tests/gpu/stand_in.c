/* A stand-in for libnvidia-ml.so.1 on machines without an NVIDIA driver. ENGRAM_TEST_NVML, read at nvmlInit, says
   which machine it is: plain, mig, slices (a container with MIG slices alone), old (no second form of memory),
   lost (a GPU that falls off the bus), hang (the driver does not answer until NVML is opened as another machine),
   mismatch (the library is not the driver's), none (no GPU), cc (confidential computing on), many (a count that is no
   driver's), gone-CODE-N (plain; after N calls all others end with CODE: the driver was unloaded, a GPU is lost).
   Numbers and structs are NVML's own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, TOO_SMALL = 7,
       FUNCTION_NOT_FOUND = 13, LOST = 15, MISMATCH = 18 };

typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } Memory2;
typedef struct { unsigned long long total, free, used; } Memory1;
typedef struct { unsigned int gpu, memory; } Utilization;
typedef struct { unsigned int environment, feature, tools; } ConfState;
typedef struct { unsigned int cec_present, size, cec_size; unsigned char nonce[32], report[0x2000], cec[0x1000]; } Report;
typedef struct { unsigned int size, attestation_size; unsigned char chain[0x1000], attestation_chain[0x1400]; } Certificate;

static char machine[32];
static int opened, gone_code, gone_after, calls;
static int gpus[2] = {0, 1}, slices[2] = {10, 11};

static int is(const char *name) { return strcmp(machine, name) == 0; }
static int sliced(void) { return is("mig") || is("slices"); }
static int gone(void) { return gone_code && calls++ >= gone_after ? gone_code : OK; }
#define UNLESS_GONE do { int code = gone(); if (code) return code; } while (0)

int nvmlInitWithFlags(unsigned int flags) {
    const char *wanted = getenv("ENGRAM_TEST_NVML");
    (void)flags;
    snprintf(machine, sizeof machine, "%s", wanted ? wanted : "plain");
    calls = gone_code = 0;
    sscanf(machine, "gone-%d-%d", &gone_code, &gone_after);
    if (is("mismatch")) return MISMATCH;
    UNLESS_GONE;
    opened++;
    return OK;
}
int nvmlShutdown(void) { if (!opened) return UNINITIALIZED; opened--; return is("lost") ? UNINITIALIZED : gone(); }
const char *nvmlErrorString(int code) {
    switch (code) {
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_SUPPORTED: return "Not Supported";
    case LOST: return "GPU is lost";
    case MISMATCH: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}
int nvmlSystemGetDriverVersion(char *out, unsigned int size) {
    UNLESS_GONE;
    snprintf(out, size, "570.172.08");
    return OK;
}
int nvmlSystemGetCudaDriverVersion(int *out) { UNLESS_GONE; *out = 12080; return OK; }
static void hang(void) { while (is("hang")) usleep(1000); }
int nvmlDeviceGetCount_v2(unsigned int *out) {
    UNLESS_GONE;
    hang();
    *out = is("none") ? 0 : sliced() ? 1 : is("many") ? 4000000000u : 2;
    return OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **out) {
    UNLESS_GONE;
    if (index > 1) return INVALID;
    if (is("lost") && index == 1) return LOST;
    *out = &gpus[index];
    return OK;
}
static int number(void *device) { return *(int *)device; }
int nvmlDeviceGetName(void *device, char *out, unsigned int size) {
    UNLESS_GONE;
    snprintf(out, size, number(device) < 10 ? "NVIDIA H100 PCIe" : "NVIDIA H100 PCIe MIG 1g.10gb");
    return OK;
}
int nvmlDeviceGetUUID(void *device, char *out, unsigned int size) {
    UNLESS_GONE;
    snprintf(out, size, number(device) < 10 ? "GPU-%d" : "MIG-%d", number(device));
    return OK;
}
static int memory(void *device, unsigned long long *total, unsigned long long *free_) {
    UNLESS_GONE;
    if (number(device) < 10 && is("slices")) return NO_PERMISSION;
    if (is("lost")) return LOST;
    *total = number(device) < 10 ? 85520809984ULL : 10200547328ULL;
    *free_ = *total - 1048576;
    return OK;
}
int nvmlDeviceGetMemoryInfo_v2(void *device, Memory2 *out) {
    if (is("old")) return FUNCTION_NOT_FOUND;
    return memory(device, &out->total, &out->free);
}
int nvmlDeviceGetMemoryInfo(void *device, Memory1 *out) { return memory(device, &out->total, &out->free); }
int nvmlDeviceGetUtilizationRates(void *device, Utilization *out) {
    (void)device;
    UNLESS_GONE;
    if (sliced()) return NOT_SUPPORTED;
    out->gpu = 42;
    return OK;
}
int nvmlDeviceGetMigMode(void *device, unsigned int *now, unsigned int *next) {
    (void)device;
    UNLESS_GONE;
    if (is("old")) return NOT_SUPPORTED;
    *now = *next = sliced();
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned int *out) { (void)device; *out = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned int index, void **out) {
    (void)device;
    UNLESS_GONE;
    if (index == 0 || index == 3) { *out = &slices[index == 3]; return OK; }
    return index == 5 ? NO_PERMISSION : NOT_FOUND;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count, void *out) {
    (void)device;
    UNLESS_GONE;
    if (is("slices")) return NO_PERMISSION;
    if (out == NULL && !is("old")) { *count = 2; return TOO_SMALL; }
    *count = is("old") ? 0 : 2;
    return OK;
}
int nvmlSystemGetConfComputeState(ConfState *out) {
    UNLESS_GONE;
    hang();
    memset(out, 0, sizeof *out);
    out->feature = is("cc") || gone_code;
    return OK;
}
int nvmlDeviceGetConfComputeGpuAttestationReport(void *device, Report *out) {
    (void)device;
    UNLESS_GONE;
    out->size = 40;
    memcpy(out->report, "report: ", 8);
    memcpy(out->report + 8, out->nonce, 32);
    return OK;
}
int nvmlDeviceGetConfComputeGpuCertificate(void *device, Certificate *out) {
    (void)device;
    UNLESS_GONE;
    out->size = 5; memcpy(out->chain, "chain", 5);
    out->attestation_size = 11; memcpy(out->attestation_chain, "attestation", 11);
    return OK;
}
