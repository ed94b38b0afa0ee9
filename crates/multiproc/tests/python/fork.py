"""Forks, and uses a library that was loaded before: lib.rs, in this folder. The argument is its path."""

import ctypes
import mmap
import os
import signal
import struct
import sys
import traceback

TAKEN, BUSY, ABANDONED = 0, 1, 2
DONE, NOTHING = 0, -1
# Longer than the library takes to notice a death, in ms; it promises one second.
BOUND = 2000
LONG = 30_000
# In seconds: ends a process that hangs.
WATCHDOG = 50

mp = ctypes.CDLL(sys.argv[1])
for name in ["mp_lock", "mp_rlock", "mp_acquire", "mp_put", "mp_put_task", "mp_get", "mp_take_task"]:
    getattr(mp, name).argtypes = [ctypes.c_uint32]
for name in ["mp_get", "mp_take_task", "mp_unfinished"]:
    getattr(mp, name).restype = ctypes.c_int64
for name in ["mp_unlock", "mp_runlock", "mp_release", "mp_drop_task"]:
    getattr(mp, name).restype = None


def check(is_right, what):
    if not is_right:
        raise AssertionError(what)


def equal(left, right):
    check(left == right, f"{left} != {right}")


def fork(life):
    pid = os.fork()
    if pid != 0:
        return pid
    signal.alarm(WATCHDOG)
    code = 1
    try:
        life()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(pid):
    equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), -signal.SIGKILL)


def parent_and_children_exclude_one_another():
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    each, children = 3000, 3

    def count():
        for _ in range(each):
            equal(mp.mp_lock(LONG), TAKEN)
            equal(struct.unpack_from("q", memory, 8)[0], 0)
            struct.pack_into("q", memory, 8, os.getpid())
            number = struct.unpack_from("q", memory, 0)[0]
            struct.pack_into("q", memory, 0, number + 1)
            equal(struct.unpack_from("q", memory, 8)[0], os.getpid())
            struct.pack_into("q", memory, 8, 0)
            mp.mp_unlock()

    pids = [fork(count) for _ in range(children)]
    count()
    for pid in pids:
        wait(pid)
    equal(struct.unpack_from("q", memory, 0)[0], each * (children + 1))


def items_of_children_arrive_once():
    each, children = 500, 3
    pids = [fork(lambda: [equal(mp.mp_put(n), DONE) for n in range(each)]) for _ in range(children)]
    got = sorted(mp.mp_get(LONG) for _ in range(each * children))
    equal(got, sorted(list(range(each)) * children))
    for pid in pids:
        wait(pid)
    equal(mp.mp_get(0), NOTHING)


def what_the_parent_holds_stays_the_parents():
    equal(mp.mp_put_task(7), DONE)
    equal((mp.mp_lock(0), mp.mp_rlock(0), mp.mp_acquire(0)), (TAKEN, TAKEN, TAKEN))
    equal(mp.mp_take_task(0), 7)

    def everything_is_taken():
        equal((mp.mp_lock(0), mp.mp_rlock(0), mp.mp_acquire(0)), (BUSY, BUSY, BUSY))
        equal((mp.mp_take_task(0), mp.mp_unfinished()), (NOTHING, 1))

    def drop_the_copies():
        mp.mp_unlock()
        mp.mp_runlock()
        mp.mp_release()
        mp.mp_drop_task()
        everything_is_taken()

    def complete_the_copy():
        equal(mp.mp_task_done(), DONE)
        everything_is_taken()

    for life in [everything_is_taken, drop_the_copies, complete_the_copy, everything_is_taken]:
        wait(fork(life))
    equal(mp.mp_task_done(), DONE)
    mp.mp_unlock()
    mp.mp_runlock()
    mp.mp_release()

    def everything_is_free():
        equal((mp.mp_lock(BOUND), mp.mp_rlock(BOUND), mp.mp_acquire(BOUND)), (TAKEN, TAKEN, TAKEN))
        mp.mp_unlock()
        mp.mp_runlock()
        mp.mp_release()
        equal(mp.mp_unfinished(), 0)

    wait(fork(everything_is_free))


def what_a_killed_child_held_comes_back():
    equal(mp.mp_put_task(8), DONE)
    is_ready, tell = os.pipe()

    def hold_everything():
        equal((mp.mp_lock(0), mp.mp_rlock(0), mp.mp_acquire(0)), (TAKEN, TAKEN, TAKEN))
        equal(mp.mp_take_task(BOUND), 8)
        os.write(tell, b"x")
        while True:
            signal.pause()

    pid = fork(hold_everything)
    os.close(tell)
    equal(os.read(is_ready, 1), b"x")
    os.close(is_ready)
    equal((mp.mp_lock(0), mp.mp_rlock(0), mp.mp_acquire(0)), (BUSY, BUSY, BUSY))
    kill(pid)
    equal((mp.mp_lock(BOUND), mp.mp_rlock(BOUND)), (ABANDONED, ABANDONED))
    equal(mp.mp_acquire(BOUND), TAKEN)
    equal(mp.mp_take_task(BOUND), 8)
    equal(mp.mp_task_done(), DONE)
    mp.mp_unlock()
    mp.mp_runlock()
    mp.mp_release()


signal.alarm(WATCHDOG)
equal(mp.mp_open(), DONE)
parent_and_children_exclude_one_another()
items_of_children_arrive_once()
what_the_parent_holds_stays_the_parents()
for _ in range(3):
    what_a_killed_child_held_comes_back()
print("done")
