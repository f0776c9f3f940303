#include "rpc.h"

#include "errors.h"

#include "ggml-rpc.h"
#include "transport.h"

#ifdef _WIN32
#  define WIN32_LEAN_AND_MEAN
#  define NOMINMAX
#  include <winsock2.h>
#  include <ws2tcpip.h>
#else
#  include <arpa/inet.h>
#  include <cerrno>
#  include <netinet/in.h>
#  include <netinet/tcp.h>
#  include <poll.h>
#  include <sys/socket.h>
#  include <sys/time.h>
#  include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#ifdef _WIN32
static void close(SOCKET fd) { closesocket(fd); }
static const int SHUT_RDWR = SD_BOTH;
#else
using SOCKET = int;
static const SOCKET INVALID_SOCKET = -1;
#endif

// A machine that is switched off, or whose cable is pulled, is noticed after KEEP_IDLE_S + KEEP_COUNT * KEEP_EVERY_S. One that
// computes may be silent for long: only a process that hangs is silent for ever.
static const int CONNECT_S = 10, KEEP_IDLE_S = 10, KEEP_EVERY_S = 5, KEEP_COUNT = 4, SILENCE_S = 600;

// Of connections that this process has made, by endpoint.
struct endpoint_state {
    uint64_t         losses = 0;
    std::set<SOCKET> alive;
    bool             renew = false; // somebody asked for another connection, the one before being lost
    int              users = 0;     // models of this process, of all its threads
};
static std::mutex                            states_mutex;
static std::map<std::string, endpoint_state> states;
static std::atomic<uint64_t>                 sent { 0 }, received { 0 }, decodes { 0 };

rpc_traffic rpc_traffic_so_far() {
    return { sent, received, decodes };
}

bool rpc_is_alive(const std::string & endpoint) {
    std::lock_guard<std::mutex> lock(states_mutex);
    return !states[endpoint].alive.empty();
}

// Asked by ggml-rpc (install/corrections.mjs): whether a connection that somebody holds is to be used. A lost one too, by those
// who had it; nobody waits for a new one in the middle of a pass.
bool rpc_keeps(const std::string & endpoint) {
    std::lock_guard<std::mutex> lock(states_mutex);
    return !states[endpoint].renew;
}

std::string rpc_greeting() {
    return std::string("xpatch " XPATCH_LLAMA_TAG).substr(0, RPC_CONN_CAPS_SIZE);
}

// Calls on a socket with a timeout are not started again by themselves, also where no signal was handled: by Ctrl-Z and fg, a
// debugger, or a machine that slept.
static bool interrupted() {
#ifdef _WIN32
    return false;
#else
    return errno == EINTR;
#endif
}

// ---- transport -------------------------------------------------------------------------------------------------------

// The interface is llama.cpp's (ggml/src/ggml-rpc/transport.h). RDMA is left out: its capabilities carry the greeting.
struct socket_t::impl {
    SOCKET            fd;
    std::string       endpoint; // empty on the side of the server
    std::atomic<bool> failed { false };

    impl(SOCKET fd, std::string endpoint) : fd(fd), endpoint(std::move(endpoint)) {
        if (!this->endpoint.empty()) {
            std::lock_guard<std::mutex> lock(states_mutex);
            auto & state = states[this->endpoint];
            state.alive.insert(fd);
            state.renew = false;
        }
        if (fd == INVALID_SOCKET) {
            fail();
        }
    }

    ~impl() {
        if (!endpoint.empty()) {
            std::lock_guard<std::mutex> lock(states_mutex);
            states[endpoint].alive.erase(fd);
        }
        if (fd != INVALID_SOCKET) {
            close(fd);
        }
    }

    // Always false. Nothing gets through from here on, also where only one message was lost: the rest would be out of step.
    bool fail() {
        if (!failed.exchange(true) && !endpoint.empty()) {
            std::lock_guard<std::mutex> lock(states_mutex);
            auto & state = states[endpoint];
            state.losses++;
            state.alive.erase(fd);
        }
        return false;
    }

    // @param some moves as many of `size` bytes as it can and returns their number
    template <typename F>
    bool move(size_t size, std::atomic<uint64_t> & count, F some) {
        for (size_t done = 0; done < size;) {
            const auto n = failed ? -1 : some(done, std::min(size - done, MAX_CHUNK_SIZE));
            if (n < 0 && !failed && interrupted()) {
                continue;
            }
            if (n <= 0) {
                return fail();
            }
            done += n;
            if (!endpoint.empty()) {
                count += n;
            }
        }
        return !failed;
    }
};

static void set(SOCKET fd, int level, int option, int value) {
    setsockopt(fd, level, option, reinterpret_cast<const char *>(&value), sizeof(value));
}

static void keep_alive(SOCKET fd) {
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
#ifdef TCP_KEEPIDLE
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE_S);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEP_EVERY_S);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEP_COUNT);
#endif
#ifdef TCP_USER_TIMEOUT
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 1000 * (KEEP_IDLE_S + KEEP_COUNT * KEEP_EVERY_S)); // of what was sent
#endif
}

static void set_timeout(SOCKET fd, int seconds) {
#ifdef _WIN32
    const DWORD time = 1000 * seconds;
#else
    const timeval time { seconds, 0 };
#endif
    for (int option : { SO_RCVTIMEO, SO_SNDTIMEO }) {
        setsockopt(fd, SOL_SOCKET, option, reinterpret_cast<const char *>(&time), sizeof(time));
    }
}

static int silence_s() {
    const char * given = std::getenv("XPATCH_RPC_TIMEOUT");
    const int    value = given ? std::atoi(given) : 0;
    return value > 0 ? value : SILENCE_S;
}

static sockaddr_in address_of(const char * host, int port) {
    sockaddr_in address {};
    address.sin_family = AF_INET;
    address.sin_port   = htons(static_cast<uint16_t>(port));
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        address.sin_addr.s_addr = htonl(INADDR_NONE);
    }
    return address;
}

socket_t::socket_t(std::unique_ptr<impl> p) : pimpl(std::move(p)) {}
socket_t::~socket_t() = default;

bool socket_t::send_data(const void * data, size_t size) {
    return pimpl->move(size, sent, [&](size_t done, size_t n) {
        return send(pimpl->fd, static_cast<const char *>(data) + done, n, 0);
    });
}

bool socket_t::recv_data(void * data, size_t size) {
    return pimpl->move(size, received, [&](size_t done, size_t n) {
        return recv(pimpl->fd, static_cast<char *>(data) + done, n, 0);
    });
}

bool socket_t::flush() {
    return true;
}

void socket_t::get_caps(uint8_t * local) {
    const std::string greeting = rpc_greeting();
    std::memset(local, 0, RPC_CONN_CAPS_SIZE);
    std::memcpy(local, greeting.data(), greeting.size());
}

void socket_t::update_caps(const uint8_t * remote) {
    uint8_t own[RPC_CONN_CAPS_SIZE];
    get_caps(own);
    if (std::memcmp(own, remote, RPC_CONN_CAPS_SIZE) != 0) {
        pimpl->fail();
    } else if (!pimpl->endpoint.empty()) {
        set_timeout(pimpl->fd, silence_s());
    }
}

static bool connected(SOCKET fd, const sockaddr_in & address) {
    if (::connect(fd, reinterpret_cast<const sockaddr *>(&address), sizeof(address)) == 0) {
        return true;
    }
#ifndef _WIN32
    if (interrupted()) { // it goes on, and must not be called again
        pollfd to { fd, POLLOUT, 0 };
        int    n;
        while ((n = poll(&to, 1, 1000 * CONNECT_S)) < 0 && interrupted()) {
        }
        int       error = 0;
        socklen_t size  = sizeof(error);
        return n == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
    }
#endif
    return false;
}

socket_ptr socket_t::connect(const char * host, int port) {
    const SOCKET fd = socket(AF_INET, SOCK_STREAM, 0);
    const auto made = socket_ptr(new socket_t(std::make_unique<impl>(fd, host + (":" + std::to_string(port)))));
    if (fd == INVALID_SOCKET) {
        return made;
    }
    keep_alive(fd);
    set_timeout(fd, CONNECT_S);
    if (!connected(fd, address_of(host, port))) {
        made->pimpl->fail();
    }
    return made; // the greeting has to come within CONNECT_S too
}

socket_ptr socket_t::create_server(const char * host, int port) {
    const SOCKET fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd == INVALID_SOCKET) {
        return nullptr;
    }
    auto made = socket_ptr(new socket_t(std::make_unique<impl>(fd, "")));
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    const sockaddr_in address = address_of(host, port);
    if (bind(fd, reinterpret_cast<const sockaddr *>(&address), sizeof(address)) < 0 || listen(fd, 1) < 0) {
        return nullptr;
    }
    return made;
}

socket_ptr socket_t::accept() {
    const SOCKET fd = ::accept(pimpl->fd, nullptr, nullptr);
    if (fd == INVALID_SOCKET) {
        return nullptr;
    }
    keep_alive(fd);
    return socket_ptr(new socket_t(std::make_unique<impl>(fd, "")));
}

bool rpc_transport_init() {
#ifdef _WIN32
    static WSADATA data;
    static const bool started = WSAStartup(MAKEWORD(2, 2), &data) == 0;
    return started;
#else
    return true;
#endif
}

void rpc_transport_shutdown() {}

// ---- both sides ------------------------------------------------------------------------------------------------------

void rpc_serve(const std::string & endpoint, int32_t n_threads, std::vector<ggml_backend_dev_t> devices) {
    std::thread([=]() mutable {
        ggml_backend_rpc_start_server(endpoint.c_str(), nullptr, n_threads, devices.size(), devices.data());
        std::_Exit(1); // it said why
    }).detach();
}

static uint64_t losses_of(const std::string & endpoint) {
    std::lock_guard<std::mutex> lock(states_mutex);
    return states[endpoint].losses;
}

static void count_user(const std::string & endpoint, int n) {
    std::lock_guard<std::mutex> lock(states_mutex);
    states[endpoint].users += n;
}

rpc_servers::known::known(const std::string & endpoint, uint64_t losses) : endpoint(endpoint), losses(losses) {
    count_user(endpoint, 1);
}

rpc_servers::known::known(known && other) noexcept : endpoint(other.endpoint), losses(other.losses) {
    count_user(endpoint, 1);
}

rpc_servers::known::~known() { count_user(endpoint, -1); }

static void renew_lost(const std::string & endpoint) {
    std::lock_guard<std::mutex> lock(states_mutex);
    auto & state = states[endpoint];
    state.renew = state.alive.empty();
}

static coded_error lost(const std::string & endpoint) {
    return { "RPC_FAILED", "the server at " + endpoint + " does not answer any more: its process has ended, or the way to it" };
}

rpc_servers::rpc_servers(const std::vector<std::string> & endpoints) {
    for (const auto & endpoint : endpoints) {
        renew_lost(endpoint);
        servers.emplace_back(endpoint, losses_of(endpoint));
        ggml_backend_reg_t reg = ggml_backend_rpc_add_server(endpoint.c_str());
        if (!reg) {
            throw lost(endpoint);
        }
        for (size_t i = 0; i < ggml_backend_reg_dev_count(reg); ++i) {
            devices.push_back(ggml_backend_reg_dev_get(reg, i));
            connections.emplace_back(ggml_backend_dev_init(devices.back(), nullptr));
        }
    }
    require();
}

void rpc_servers::settle() const {
    for (ggml_backend_dev_t device : devices) {
        size_t free = 0, total = 0;
        ggml_backend_dev_memory(device, &free, &total); // asks the server, in its turn
    }
    require();
}

static thread_local bool skips_logits = false;

rpc_servers::without_logits::without_logits(bool skip) { skips_logits = skip; }

rpc_servers::without_logits::~without_logits() { skips_logits = false; }

// Called by ggml-rpc, see install/corrections.mjs.
bool rpc_skips(const ggml_tensor * tensor) { return skips_logits && std::strcmp(tensor->name, "result_output") == 0; }

void rpc_servers::count_decode() const {
    decodes += !servers.empty();
}

void rpc_servers::require() const {
    for (const auto & server : servers) {
        if (losses_of(server.endpoint) != server.losses) {
            throw lost(server.endpoint);
        }
    }
}

void rpc_servers::hang_up() const {
    std::lock_guard<std::mutex> lock(states_mutex);
    for (const auto & server : servers) {
        const auto & state = states[server.endpoint];
        if (state.users > 1) {
            continue;
        }
        for (SOCKET fd : state.alive) {
            shutdown(fd, SHUT_RDWR);
        }
    }
}
