/* mapped [--verify] FILE: write a file through a shared mapping, or check what the first run left. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 3 * 1024 * 1024 + 1234 };

static int fail(const char *what)
{
	perror(what);
	return 1;
}

int main(int argc, char **argv)
{
	int verify = argc == 3 && !strcmp(argv[1], "--verify");
	int fd = open(argv[argc - 1], O_RDWR | O_CREAT, 0644);
	unsigned char *p;
	long i;

	if (fd < 0)
		return fail("open");
	if (!verify && ftruncate(fd, SIZE))
		return fail("ftruncate");
	p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return fail("mmap");
	for (i = 0; i < SIZE; i += 997) {
		unsigned char want = (unsigned char)(i * 31 >> 3);
		if (verify && p[i] != want) {
			printf("byte %ld: got %d, want %d\n", i, p[i], want);
			return 1;
		}
		p[i] = want;
	}
	if (msync(p, SIZE, MS_SYNC))
		return fail("msync");
	return 0;
}
