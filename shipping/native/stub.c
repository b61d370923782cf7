/* The beginning of the one-file form: unpacks what follows it once, and becomes the program in there.

   The file is this program, a gzip stream of records, and a trailer. A record is (mode, length of the path, size), the
   path, and the content; the last one has no path. The first start unpacks into CACHE/ID, where ID is the SHA-256 of the
   stream; every start then executes CACHE/ID/engram: one process, one pid, nothing to clean up.

   A folder is renamed into place only when it is whole, on disk, and the stream had the right hash. Its file .files names
   each file with its size, and every start looks whether they are there: programs that clear caches remove single files. A
   folder that is not whole is put aside and unpacked again. What was put aside is removed when nothing runs from it: every
   program holds a lock on its own folder (program.c).

   The lock CACHE/.lock is shared by starts, from that look until they have become the program, and held by one alone while
   it unpacks, or while `engram upgrade` removes folders. What a killed start left is removed by the next. A cache that
   others can write, or that belongs to somebody else, is not used. */
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>

#include "sha256.h"

#define PROGRAM "engram"
#define LOADER "lib/ld-linux.so"
#define LIST ".files"
#define LIST_END "."
#define SPARE_BYTES (16u << 20)
#define PART (1u << 18)

struct trailer {
    uint64_t offset, length, unpacked;
    char id[64];
    char magic[8];
};

struct record {
    uint32_t mode, path_length;
    uint64_t size;
};

static char reasons[4 * PATH_MAX];
static char staged[PATH_MAX]; /* what is removed when unpacking fails */

static int remove_one(const char *path, const struct stat *found, int kind, struct FTW *at) {
    (void)found, (void)kind, (void)at;
    return remove(path);
}

static void remove_tree(const char *path) { nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...) {
    if (*staged) remove_tree(staged);
    va_list arguments;
    va_start(arguments, format);
    fputs("engram cannot start: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(2);
}

/* Notes why a folder cannot be the cache, for the message when none can. */
static int __attribute__((format(printf, 1, 2))) unusable(const char *format, ...) {
    size_t used = strlen(reasons);
    va_list arguments;
    va_start(arguments, format);
    if (used < sizeof reasons - 3) {
        if (used) strcpy(reasons + used, "; "), used += 2;
        vsnprintf(reasons + used, sizeof reasons - used, format, arguments);
    }
    va_end(arguments);
    return 0;
}

static int is_ours(const struct stat *found) {
    return (found->st_uid == geteuid() || found->st_uid == 0) && !(found->st_mode & 022);
}

static int make_folders(char *path) {
    for (char *slash = path + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = 0;
        int failed = mkdir(path, 0700) && errno != EEXIST && errno != EROFS;
        int reason = errno;
        if (failed) return *slash = '/', errno = reason, -1;
    }
    return mkdir(path, 0700) && errno != EEXIST ? -1 : 0;
}

static int is_there(const char *home) {
    struct stat found;
    char program[PATH_MAX];
    if (lstat(home, &found)) return 0;
    if (!S_ISDIR(found.st_mode) || !is_ours(&found))
        fail("%s was not unpacked by this user (owner %d, mode %03o); remove it, or set ENGRAM_UNPACK_DIR", home,
             (int)found.st_uid, found.st_mode & 0777);
    return snprintf(program, sizeof program, "%s/" PROGRAM, home) < (int)sizeof program && !access(program, X_OK);
}

/* Whether every file of LIST, which ends with LIST_END, is there with its size. */
static int is_whole(const char *home) {
    char line[PATH_MAX + 32], *path;
    struct stat found;
    int ended = 0, folder = is_there(home) ? open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int file = folder < 0 ? -1 : openat(folder, LIST, O_RDONLY | O_CLOEXEC);
    FILE *list = file < 0 ? NULL : fdopen(file, "r");
    while (list && fgets(line, sizeof line, list)) {
        line[strcspn(line, "\n")] = 0;
        if ((ended = !strcmp(line, LIST_END))) break;
        unsigned long long size = strtoull(line, &path, 10);
        if (*path != ' ' || fstatat(folder, path + 1, &found, AT_SYMLINK_NOFOLLOW) ||
            (unsigned long long)found.st_size != size)
            break;
    }
    if (list) fclose(list);
    if (folder >= 0) close(folder);
    return ended;
}

/* Whether `base` can be the cache; makes it. */
static int is_usable(char *base, const char *id) {
    struct stat found;
    struct statvfs disk;
    char home[PATH_MAX];
    if (*base != '/') return unusable("%s is not an absolute path", base);
    if (make_folders(base)) return unusable("%s cannot be made: %s", base, strerror(errno));
    /* A link of this user's own may lead to another disk; one of somebody else's leads where he likes. */
    if (!lstat(base, &found) && S_ISLNK(found.st_mode) && found.st_uid != geteuid() && found.st_uid != 0)
        return unusable("%s is a link of user %d", base, (int)found.st_uid);
    if (stat(base, &found) || !S_ISDIR(found.st_mode)) return unusable("%s is not a folder", base);
    if (!is_ours(&found))
        return unusable("%s belongs to user %d and has mode %03o: others could plant a program there; chmod go-w it, or"
                        " use a folder of this user",
                        base, (int)found.st_uid, found.st_mode & 0777);
    if (statvfs(base, &disk)) return unusable("%s: %s", base, strerror(errno));
    if (disk.f_flag & ST_NOEXEC) return unusable("%s is on a file system mounted noexec, where no program runs", base);
    snprintf(home, sizeof home, "%s/%.64s", base, id);
    if (!is_there(home) && access(base, W_OK)) return unusable("%s cannot be written: %s", base, strerror(errno));
    return 1;
}

static int choose(char *base, size_t size, const char *id) {
    const char *named = getenv("ENGRAM_UNPACK_DIR"), *service = getenv("CACHE_DIRECTORY");
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (named && *named) return snprintf(base, size, "%s", named), is_usable(base, id);
    if (service && *service)
        return snprintf(base, size, "%.*s", (int)strcspn(service, ":"), service), is_usable(base, id);
    if (cache && *cache && (snprintf(base, size, "%s/engram", cache), is_usable(base, id))) return 1;
    if (!(cache && *cache) && home && *home && (snprintf(base, size, "%s/.cache/engram", home), is_usable(base, id)))
        return 1;
    snprintf(base, size, "/var/tmp/engram-%d", (int)geteuid());
    return is_usable(base, id);
}

/* The decompressed stream. */
struct source {
    int file;
    uint64_t left;
    struct sha256 hash;
    z_stream zip;
    uint8_t input[PART];
};

static void damaged(const char *what) { fail("this file is damaged (%s); get it again and compare its SHA-256", what); }

static void take(struct source *from, void *into, uint64_t count) {
    from->zip.next_out = into;
    while (count) {
        uInt part = count < PART ? (uInt)count : PART;
        from->zip.avail_out = part;
        if (!from->zip.avail_in) {
            size_t wanted = from->left < sizeof from->input ? from->left : sizeof from->input;
            ssize_t got = wanted ? read(from->file, from->input, wanted) : 0;
            if (got <= 0) damaged("it ends too early");
            from->left -= got;
            sha256_add(&from->hash, from->input, got);
            from->zip.next_in = from->input, from->zip.avail_in = got;
        }
        int result = inflate(&from->zip, Z_NO_FLUSH);
        count -= part - from->zip.avail_out;
        if (result == Z_STREAM_END ? count != 0 : result != Z_OK && result != Z_BUF_ERROR) damaged("it does not inflate");
    }
}

static void require_whole(struct source *from, const char *id) {
    char digits[64];
    ssize_t got;
    while (from->left && (got = read(from->file, from->input, from->left < PART ? from->left : PART)) > 0) {
        from->left -= got;
        sha256_add(&from->hash, from->input, got);
    }
    sha256_end(&from->hash, digits);
    if (from->left || memcmp(digits, id, sizeof digits)) damaged("its content has not the hash that it names");
}

static void cannot_write(const char *path) { fail("%s cannot be written: %s", path, strerror(errno)); }

static void write_file(struct source *from, const char *path, const struct record *record) {
    static uint8_t content[PART];
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, record->mode & 0777);
    if (file < 0) cannot_write(path);
    for (uint64_t left = record->size; left;) {
        size_t part = left < sizeof content ? left : sizeof content;
        take(from, content, part);
        for (size_t done = 0; done < part;) {
            ssize_t wrote = write(file, content + done, part - done);
            if (wrote < 0) cannot_write(path);
            done += wrote;
        }
        left -= part;
    }
    if (close(file)) cannot_write(path);
}

static void unpack(struct source *from, const char *into) {
    char path[PATH_MAX];
    size_t before = snprintf(path, sizeof path, "%s/" LIST, into) - strlen(LIST);
    FILE *list = fopen(path, "wxe");
    if (!list) cannot_write(path);
    for (;;) {
        struct record record;
        take(from, &record, sizeof record);
        if (!record.path_length) break;
        if (before + record.path_length >= sizeof path) damaged("a path is too long");
        take(from, path + before, record.path_length);
        path[before + record.path_length] = 0;
        if (path[before] == '/' || strstr(path + before, "..")) damaged("a path leaves the folder");
        for (char *slash = path + before; (slash = strchr(slash, '/')); *slash++ = '/') {
            *slash = 0;
            if (mkdir(path, 0755) && errno != EEXIST) cannot_write(path);
        }
        write_file(from, path, &record);
        fprintf(list, "%llu %s\n", (unsigned long long)record.size, path + before);
    }
    fputs(LIST_END "\n", list);
    path[before] = 0;
    int failed = ferror(list);
    if (fclose(list) || failed) cannot_write(path);
}

/* Names the loader in the final folder as the program's: a relative path would be looked up where it is started. */
static void name_loader(const char *program, const char *home) {
    Elf64_Ehdr head;
    Elf64_Phdr part;
    char loader[PATH_MAX] = "";
    int file = open(program, O_RDWR | O_CLOEXEC);
    if (file < 0 || pread(file, &head, sizeof head, 0) != sizeof head) cannot_write(program);
    for (int i = 0; i < head.e_phnum; i++) {
        if (pread(file, &part, sizeof part, head.e_phoff + i * sizeof part) != sizeof part) break;
        if (part.p_type != PT_INTERP) continue;
        size_t length = snprintf(loader, sizeof loader, "%s/" LOADER, home);
        if (length >= part.p_filesz || part.p_filesz > sizeof loader)
            fail("the path %s is too long; set ENGRAM_UNPACK_DIR to a shorter one", home);
        if (pwrite(file, loader, part.p_filesz, part.p_offset) != (ssize_t)part.p_filesz || close(file))
            cannot_write(program);
        return;
    }
    damaged("its program names no loader");
}

/* Removes the folders in `base` whose names begin so; of those `locked`, the ones that no program has locked. */
static void remove_named(const char *base, const char *beginning, int locked) {
    DIR *entries = opendir(base);
    struct dirent *entry;
    char path[PATH_MAX];
    while (entries && (entry = readdir(entries))) {
        if (strncmp(entry->d_name, beginning, strlen(beginning)) ||
            snprintf(path, sizeof path, "%s/%s", base, entry->d_name) >= (int)sizeof path)
            continue;
        int folder = locked ? open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
        if (!locked || (folder >= 0 && !flock(folder, LOCK_EX | LOCK_NB))) remove_tree(path);
        if (folder >= 0) close(folder);
    }
    if (entries) closedir(entries);
}

/* Opens the lock of the cache; in one that cannot be written there may be none. */
static int open_lock(const char *base) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/.lock", base);
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return lock < 0 ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : lock;
}

static void take_lock(int lock, int how, const char *base) {
    while (flock(lock, how))
        if (errno != EINTR) cannot_write(base);
}

static void put_aside(const char *base, const char *home, const char *id) {
    char aside[PATH_MAX];
    struct stat found;
    if (lstat(home, &found)) return;
    snprintf(aside, sizeof aside, "%s/.broken-%.64s-%d", base, id, (int)getpid());
    if (rename(home, aside)) fail("%s is not whole and cannot be put aside: %s", home, strerror(errno));
}

static void unpack_once(int self, const struct trailer *trailer, const char *base, const char *home) {
    static struct source from;
    char path[PATH_MAX], aside[128];
    struct statvfs disk;
    remove_named(base, ".unpacking-", 0);
    if (!statvfs(base, &disk) && (uint64_t)disk.f_bavail * disk.f_frsize < trailer->unpacked + SPARE_BYTES)
        fail("%s has %llu MB free, unpacking needs %llu MB; free some, or set ENGRAM_UNPACK_DIR", base,
             (unsigned long long)disk.f_bavail * disk.f_frsize >> 20,
             (unsigned long long)(trailer->unpacked + SPARE_BYTES) >> 20);
    snprintf(path, sizeof path - 16, "%s/.unpacking-XXXXXX", base);
    if (!mkdtemp(path)) cannot_write(path);
    strcpy(staged, path);
    from.file = self, from.left = trailer->length;
    sha256_begin(&from.hash);
    if (lseek(self, trailer->offset, SEEK_SET) < 0 || inflateInit2(&from.zip, 31) != Z_OK) damaged("no stream");
    unpack(&from, staged);
    require_whole(&from, trailer->id);
    strcat(path, "/" PROGRAM); /* mkdtemp's path, far from its bound */
    name_loader(path, home);
    int folder = open(staged, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 || syncfs(folder)) cannot_write(staged); /* or a crash of the machine leaves empty files in place */
    close(folder);
    put_aside(base, home, trailer->id);
    if (chmod(staged, 0755) || rename(staged, home)) cannot_write(home);
    *staged = 0;
    snprintf(aside, sizeof aside, ".broken-%.64s-", trailer->id); /* of this build alone: older ones hold no lock */
    remove_named(base, aside, 1);
}

int main(int argc, char **argv) {
    struct trailer trailer;
    char base[PATH_MAX - 200], home[PATH_MAX - 100], path[PATH_MAX];
    (void)argc;
    int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (self < 0) fail("/proc/self/exe cannot be read (%s); mount /proc", strerror(errno));
    if (lseek(self, -(off_t)sizeof trailer, SEEK_END) < 0 || read(self, &trailer, sizeof trailer) != sizeof trailer ||
        memcmp(trailer.magic, "ENGRAM02", 8))
        damaged("its end is missing");
    if (!choose(base, sizeof base, trailer.id))
        fail("there is no folder to unpack into: %s. Set ENGRAM_UNPACK_DIR to one that this user can write", reasons);
    snprintf(home, sizeof home, "%s/%.64s", base, trailer.id);
    int lock = open_lock(base); /* held until this process has become the program */
    if (lock >= 0) take_lock(lock, LOCK_SH, base);
    if (!is_whole(home)) {
        if (lock < 0) fail("%s is not there or not whole, and %s/.lock cannot be opened: %s", home, base, strerror(errno));
        take_lock(lock, LOCK_EX, base);
        if (!is_whole(home)) unpack_once(self, &trailer, base, home);
    }
    close(self);
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length > 0) path[length] = 0, setenv("ENGRAM_BINARY", path, 1);
    snprintf(path, sizeof path, "%s/" PROGRAM, home);
    execv(path, argv);
    fail("%s does not run: %s", path, strerror(errno));
}
