"""Runs the workload of the bench `queue` on queues for Python: 64 bytes, capacity 1024.

Prints a table of nanoseconds per item. faster-fifo is skipped if it is not installed.
"""

import multiprocessing
import time

CAPACITY = 1024
COUNT = 200_000
ITEM = bytes(64)


def put(queue, count):
    for _ in range(count):
        queue.put(ITEM)


def get(queue, count):
    for _ in range(count):
        queue.get()


def measure(name, queue, producers, consumers):
    share = COUNT // producers
    processes = [multiprocessing.Process(target=put, args=(queue, share)) for _ in range(producers)]
    # This process is one of the consumers.
    share_out = share * producers // consumers
    processes += [
        multiprocessing.Process(target=get, args=(queue, share_out)) for _ in range(consumers - 1)
    ]
    start = time.monotonic()
    for process in processes:
        process.start()
    get(queue, share_out)
    for process in processes:
        process.join()
    nanos = (time.monotonic() - start) * 1e9 / COUNT
    print(f"| {name}, {producers} to {consumers} | {nanos:.0f} |", flush=True)


def main():
    # Forking is cheap here, since this process is small like the consumer of the bench.
    multiprocessing.set_start_method("fork")
    print("\n| libraries for Python, 64 bytes | ns |\n|---|---|", flush=True)
    for producers, consumers in [(1, 1), (4, 4)]:
        queue = multiprocessing.Queue(CAPACITY)
        measure("CPython multiprocessing.Queue", queue, producers, consumers)
    try:
        import faster_fifo
    except ImportError as error:
        print(f"| faster-fifo | skipped: {error} |")
        return
    for producers, consumers in [(1, 1), (4, 4)]:
        queue = faster_fifo.Queue(CAPACITY * 128)

        class Waiting:
            """Waits up to 60 seconds: by default put and get time out after 10."""

            def put(self, item, queue=queue):
                queue.put(item, timeout=60)

            def get(self, queue=queue):
                return queue.get(timeout=60)

        measure("faster-fifo", Waiting(), producers, consumers)


if __name__ == "__main__":
    main()
