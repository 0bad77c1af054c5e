"""How the processes that Ray starts are to take memory from the system."""

# Ray calls an actor's methods on threads, and glibc gives threads heaps of their own, which give
# memory back all the time and never have large pages (`ddpm.memory`); one for all does neither.
# glibc reads this when a process starts, so a head hands it to all that it starts.
MEMORY_SETTINGS = {"MALLOC_ARENA_MAX": "1"}
