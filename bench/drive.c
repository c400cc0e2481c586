// The load: N agents in a closed loop, one keep-alive connection each, one thread, epoll. Every agent sends
// what agent_sdk sends and takes run id and claim token from the answer to its claim. Only to 127.0.0.1.
//
//   drive work|chain|hold|create PORT[,PORT...] AGENTS WARM_UP_SECONDS SECONDS MOST_REQUESTS BODY [RATE]
//
//   work    claim, then complete what was claimed: one by one, or in bulk if BODY has a max_runs above 1
//   chain   claim once, then complete and claim the next run in one request, as agent_sdk's worker does
//   hold    claim once, then heartbeat
//   create  create tasks
//
// BODY is that of the claim or of the created task; the key comes in the variable WORKLEASE_API_KEY. Agents
// take turns at the ports. With a RATE the loop is open: so many claims or creations are begun a second, evenly,
// by whichever agents rest. One line of JSON on stdout: rates and latencies of the seconds after the warm-up,
// totals of the whole drive. When time is up nothing more is claimed, and what is held is completed; an agent
// that finds nothing to claim (`dry`), or meets an error, stops.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MOST_AGENTS = 1024, MOST_HELD = 100, MOST_PORTS = 8, ID = 80, GRACE_SECONDS = 20 };
enum mode { WORK, CHAIN, HOLD, CREATE };
enum call { CLAIM, COMPLETE, BULK_COMPLETE, HEARTBEAT, CREATE_TASK, NOTHING };

struct agent {
    int fd, held;
    enum call call;
    char session[ID], run[MOST_HELD][ID], token[MOST_HELD][ID];
    char *out, *in;
    size_t out_length, out_sent, in_length, in_size;
    double sent_at;
};

struct latencies { float *ms; size_t count, size; };

static struct agent agents[MOST_AGENTS];
static struct latencies claims, others;
static enum mode mode;
static const char *claim_body, *key;
static double started, begin, end, rate;
static long most_requests, requests, begun, jobs, claimed, done, dry, errors;
static struct agent *resting[MOST_AGENTS];
static int resting_count;

static void fail(const char *what) {
    perror(what);
    exit(2);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void note(struct latencies *l, double ms) {
    if (l->count == l->size) {
        l->size = l->size ? 2 * l->size : 65536;
        if (!(l->ms = realloc(l->ms, l->size * sizeof *l->ms))) fail("realloc");
    }
    l->ms[l->count++] = ms;
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void tell(const char *name, struct latencies *l) {
    qsort(l->ms, l->count, sizeof *l->ms, by_size);
    double p50 = l->count ? l->ms[l->count / 2] : 0, p99 = l->count ? l->ms[l->count * 99 / 100] : 0;
    printf(",\"%s\":{\"count\":%zu,\"p50_ms\":%.3f,\"p99_ms\":%.3f}", name, l->count, p50, p99);
}

// Copies the next string member of this name into `to`; where it ends, or NULL.
static const char *member(const char *json, const char *name, char *to) {
    char quoted[40];
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    if (!json || !(json = strstr(json, quoted))) return NULL;
    json += strlen(quoted);
    json += strspn(json, " :");
    size_t length = *json == '"' ? strcspn(json + 1, "\"") : ID;
    if (length >= ID) return NULL;
    memcpy(to, json + 1, length);
    to[length] = 0;
    return json + 1 + length;
}

// Takes run ids and tokens out of the answer to a claim, or to a completion that claims.
static void take(struct agent *a, const char *body) {
    const char *many = strstr(body, "\"claims\"");
    const char *at = many ? many : strstr(body, "\"claim\"");
    while (at && a->held < MOST_HELD && (at = strstr(at, "\"lease\""))) {
        at = member(at, "run_id", a->run[a->held]);
        at = member(at, "claim_token", a->token[a->held]);
        if (!at) break;
        a->held++;
    }
    claimed += a->held;
}

static enum call next_call(struct agent *a, double t) {
    bool over = t >= end || requests >= most_requests;
    if (mode == CREATE) return over ? NOTHING : CREATE_TASK;
    if (mode == HOLD && a->held) return over ? NOTHING : HEARTBEAT;
    if (a->held) return a->held > 1 ? BULK_COMPLETE : COMPLETE;
    return over ? NOTHING : CLAIM;
}

// Writes path and body of a call; the length of the body.
static size_t compose(struct agent *a, char *path, char *body) {
    bool chained = mode == CHAIN && now() < end && requests < most_requests;
    switch (a->call) {
    case CLAIM:
        strcpy(path, "/api/agent/tasks/claim-next");
        return sprintf(body, "%s", claim_body);
    case CREATE_TASK:
        strcpy(path, "/api/tasks");
        return sprintf(body, "%s", claim_body);
    case HEARTBEAT:
        sprintf(path, "/api/agent/tasks/%s/heartbeat", a->run[0]);
        return sprintf(body, "{\"claim_token\":\"%s\"}", a->token[0]);
    case COMPLETE:
        sprintf(path, "/api/agent/tasks/%s/complete", a->run[0]);
        return sprintf(body, "{\"claim_token\":\"%s\",\"result\":{\"ok\":true}%s%s}", a->token[0],
                       chained ? ",\"claim_next\":" : "", chained ? claim_body : "");
    default:
        strcpy(path, "/api/agent/tasks/bulk/complete");
    }
    char *at = body + sprintf(body, "{\"items\":[");
    for (int i = 0; i < a->held; i++)
        at += sprintf(at, "%s{\"run_id\":\"%s\",\"claim_token\":\"%s\",\"result\":{\"ok\":true}}",
                      i ? "," : "", a->run[i], a->token[i]);
    return at - body + sprintf(at, "]}");
}

static void push(struct agent *a) {
    while (a->out_sent < a->out_length) {
        ssize_t n = send(a->fd, a->out + a->out_sent, a->out_length - a->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) return; // EPOLLOUT goes on
        if (n < 0) fail("send");
        a->out_sent += n;
    }
}

// When the next claim or creation is due.
static double next_due(void) {
    return rate > 0 ? started + begun / rate : 0;
}

// Sends the agent's next request, or lets it rest until one is due; false when it has none.
static bool ask(struct agent *a) {
    static char body[MOST_HELD * 3 * ID + 4096];
    char path[2 * ID], idempotency[80] = "";
    if ((a->call = next_call(a, now())) == NOTHING) return false;
    bool first = a->call == CLAIM || a->call == CREATE_TASK;
    if (first && now() < next_due()) {
        resting[resting_count++] = a;
        return true;
    }
    begun += first;
    size_t length = compose(a, path, body);
    if (first)
        sprintf(idempotency, "Idempotency-Key: %016lx%08x%08lx\r\n", (long)(begin * 1e6), getpid(), requests);
    a->out_sent = 0;
    a->out_length = sprintf(a->out,
        "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
        "Connection: keep-alive\r\nUser-Agent: bench\r\nAuthorization: Bearer %s\r\n"
        "Content-Type: application/json\r\nX-Session-ID: %s\r\nX-Agent-Name: local\r\n%s"
        "Content-Length: %zu\r\n\r\n%s", path, key, a->session, idempotency, length, body);
    requests++;
    a->sent_at = now();
    push(a);
    return true;
}

// Reads what came; the status and body of a whole answer, or 0.
static int hear(struct agent *a, char **body) {
    for (;;) {
        if (a->in_length + 1 >= a->in_size) {
            a->in_size = a->in_size ? 2 * a->in_size : 16384;
            if (!(a->in = realloc(a->in, a->in_size))) fail("realloc");
        }
        ssize_t n = recv(a->fd, a->in + a->in_length, a->in_size - a->in_length - 1, 0);
        if (n < 0 && errno == EAGAIN) break;
        if (n <= 0) fail("the server closed a connection");
        a->in_length += n;
    }
    a->in[a->in_length] = 0;
    char *head_end = strstr(a->in, "\r\n\r\n");
    if (!head_end) return 0;
    *head_end = 0;
    char *given = strcasestr(a->in, "\ncontent-length:");
    size_t length = given ? strtoul(given + 16, NULL, 10) : 0;
    *body = head_end + 4;
    bool whole = a->in_length - (*body - a->in) >= length;
    int status = whole ? atoi(a->in + 9) : 0;
    if (!whole) *head_end = '\r';
    return status;
}

// Counts an answer and does what follows from it; false when the agent is done.
static bool answered(struct agent *a, int status, const char *body) {
    double t = now();
    long now_done = 1;
    if (t >= begin && t < end) note(a->call == CLAIM ? &claims : &others, (t - a->sent_at) * 1e3);
    if (status == 204) {
        dry++;
        return false;
    }
    if (status / 100 != 2) {
        if (!errors++) fprintf(stderr, "drive: %d %s\n", status, body);
        return false;
    }
    if (a->call == CLAIM) {
        take(a, body);
        return true;
    }
    if (a->call == BULK_COMPLETE)
        for (now_done = 0; (body = strstr(body, "\"ok\":true")); body++) now_done++;
    if (a->call == BULK_COMPLETE || a->call == COMPLETE) {
        errors += a->held - now_done;
        a->held = 0;
        if (mode == CHAIN) take(a, body);
    }
    done += now_done;
    if (t >= begin && t < end) jobs += now_done;
    return true;
}

static void join_in(struct agent *a, int number, int port, int poll) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int yes = 1;
    a->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(a->fd, (struct sockaddr *)&to, sizeof to)) fail("connect");
    setsockopt(a->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (fcntl(a->fd, F_SETFL, O_NONBLOCK)) fail("fcntl");
    snprintf(a->session, sizeof a->session, "bench-%d-%d", getpid(), number);
    if (!(a->out = malloc(MOST_HELD * 3 * ID + 8192))) fail("malloc");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = a};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, a->fd, &event)) fail("epoll_ctl");
}

// Goes on until every agent is done, or has waited too long; how many were left without an answer.
static int drive(int poll, int count) {
    struct epoll_event ready[MOST_AGENTS];
    char *body;
    int busy = 0, n, status;
    for (int i = 0; i < count; i++) busy += ask(&agents[i]);
    while (busy > 0 && now() < end + GRACE_SECONDS) {
        double rest = resting_count ? (next_due() < end ? next_due() : end) - now() : 1;
        n = epoll_wait(poll, ready, MOST_AGENTS, rest <= 0 ? 0 : rest < 1 ? (int)(rest * 1e3) + 1 : 1000);
        while (resting_count && (now() >= next_due() || now() >= end)) {
            // Who rests longest goes first: a connection that nobody uses is closed after a while.
            struct agent *next = resting[0];
            memmove(resting, resting + 1, --resting_count * sizeof *resting);
            if (!ask(next)) busy--;
        }
        for (int i = 0; i < n; i++) {
            struct agent *a = ready[i].data.ptr;
            if (ready[i].events & EPOLLOUT) push(a);
            if (!(ready[i].events & EPOLLIN) || !(status = hear(a, &body))) continue;
            a->in_length = 0;
            if (!answered(a, status, body) || !ask(a)) busy--;
        }
    }
    return busy;
}

int main(int count, char **arguments) {
    if ((count != 8 && count != 9) || !(key = getenv("WORKLEASE_API_KEY"))) {
        fprintf(stderr, "see the head of drive.c\n");
        return 2;
    }
    const char *word = arguments[1];
    mode = !strcmp(word, "work") ? WORK : !strcmp(word, "chain") ? CHAIN
         : !strcmp(word, "hold") ? HOLD : CREATE;
    int ports[MOST_PORTS], port_count = 0, agent_count = atoi(arguments[3]);
    for (char *p = strtok(arguments[2], ","); p && port_count < MOST_PORTS; p = strtok(NULL, ","))
        ports[port_count++] = atoi(p);
    double warm_up = atof(arguments[4]), seconds = atof(arguments[5]);
    most_requests = atol(arguments[6]);
    claim_body = arguments[7];
    rate = count == 9 ? atof(arguments[8]) : 0;
    if (!port_count || agent_count < 1 || agent_count > MOST_AGENTS || strlen(claim_body) > 4000) return 2;

    int poll = epoll_create1(0);
    for (int i = 0; i < agent_count; i++) join_in(&agents[i], i, ports[i % port_count], poll);
    started = now();
    begin = started + warm_up;
    end = begin + seconds;
    int unanswered = drive(poll, agent_count);

    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec
               + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    double lasted = (now() < end ? now() : end) - begin;
    printf("{\"seconds\":%.3f,\"jobs\":%ld,\"claimed\":%ld,\"done\":%ld,\"requests\":%ld,\"dry\":%ld,"
           "\"errors\":%ld,\"unanswered\":%d,\"cpu_seconds\":%.2f",
           lasted, jobs, claimed, done, requests, dry, errors, unanswered, cpu);
    tell("claim", &claims);
    tell("other", &others);
    printf("}\n");
    return errors || unanswered ? 1 : 0;
}
