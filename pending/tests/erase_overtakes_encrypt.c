/*
 * encrypt_mprotect() that has found the key, but waits for its mmap lock while the
 * key is erased: the memory must not come under what is no key any more.  Nobody
 * finds it later, since its mm has no memory under a key yet.
 */
struct late {
	serial_t key;
	char *mem, *slow;
	size_t len, slow_len;
	bool slow_started, slow_done, late_done;
	pid_t tid;
	int ret, err;
};

/* Holds the mmap lock for long: a page table entry for each page. */
static void *hold_mmap_lock(void *arg)
{
	struct late *l = arg;

	__atomic_store_n(&l->slow_started, true, __ATOMIC_SEQ_CST);
	madvise(l->slow, l->slow_len, MADV_POPULATE_READ);
	__atomic_store_n(&l->slow_done, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static void *encrypt_late(void *arg)
{
	struct late *l = arg;

	while (!__atomic_load_n(&l->slow_started, __ATOMIC_SEQ_CST))
		;
	usleep(20000);
	__atomic_store_n(&l->tid, syscall(__NR_gettid), __ATOMIC_SEQ_CST);
	l->ret = encrypt_mprotect(l->mem, l->len, RW, l->key);
	l->err = errno;
	__atomic_store_n(&l->late_done, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static char thread_state(pid_t pid, pid_t tid)
{
	char path[64], buf[256], *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	fd = open(path, O_RDONLY);
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	buf[n] = 0;
	p = strrchr(buf, ')');
	return p ? p[2] : 0;
}

/* An mm of its own.  0: not in time; 1: refused as it should be; 2: not. */
static int late_round(void *arg)
{
	struct late *l = arg;
	pthread_t slow, late;

	/* Nothing is ever there but the zero page. */
	l->slow = mmap(NULL, l->slow_len, PROT_READ,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (l->slow == MAP_FAILED)
		return 3;
	madvise(l->slow, l->slow_len, MADV_NOHUGEPAGE);
	if (pthread_create(&slow, NULL, hold_mmap_lock, l) ||
	    pthread_create(&late, NULL, encrypt_late, l))
		return 3;
	pthread_join(late, NULL);
	pthread_join(slow, NULL);
	return l->ret == -1 && l->err == ENOKEY ? 1 : 2;
}

TEST_F_TIMEOUT(service, erase_overtakes_encrypt, 120)
{
	int round, status, in_time = 0;
	struct late *l;
	pid_t pid;

	l = mmap(NULL, sizeof(*l), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, l);
	for (round = 0; round < 20 && in_time < 2; round++) {
		*l = (struct late){
			.key = self->key, .mem = self->mem, .len = self->len,
			.slow_len = (size_t)(round + 2) << 30,
		};
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid)
			_exit(late_round(l));
		while (!l->late_done &&
		       !(l->tid && thread_state(pid, l->tid) == 'D'))
			;
		ASSERT_EQ(0, update_key(self->key, ERASE));
		/* It had found the key, and had not got the lock? */
		status = __atomic_load_n(&l->slow_done, __ATOMIC_SEQ_CST) ||
			 __atomic_load_n(&l->late_done, __ATOMIC_SEQ_CST);
		in_time += !status;
		if (!status) {
			ASSERT_EQ(pid, waitpid(pid, &status, 0));
			EXPECT_EQ(1, WEXITSTATUS(status));
		} else {
			ASSERT_EQ(pid, waitpid(pid, &status, 0));
		}
		ASSERT_EQ(0, update_key(self->key, CPU_128));
	}
	EXPECT_LT(0, in_time);
	EXPECT_TRUE(keyids_fall_to(self->in_use + 1));
}

