#pragma once

#include "ggml-cpp.h"

#include <cstdint>
#include <string>
#include <vector>

// Layers on other machines, by ggml-rpc, which is compiled into the addon with a transport of our own (rpc.cpp). llama.cpp's
// ends the process when a server is lost; here it is noted, everything asked of that server is zeros from then on, and who
// called is told by `rpc_servers::require`.

// What both sides send in the greeting of the protocol: other llama.cpp, other kernels.
std::string rpc_greeting();

// Bytes of all connections that this process has made, and llama_decodes that used them.
struct rpc_traffic {
    uint64_t sent, received, decodes;
};
rpc_traffic rpc_traffic_so_far();

// Whether there is a connection to "1.2.3.4:50052": its server speaks to nobody else.
bool rpc_is_alive(const std::string & endpoint);

// Serves devices to one client at a time until the process ends, and ends it where the address cannot be used.
void rpc_serve(const std::string & endpoint, int32_t n_threads, std::vector<ggml_backend_dev_t> devices);

// The servers that hold layers of one model. They are connected to as long as this lives: in between somebody else could come.
class rpc_servers {
public:
    // Throws coded_error RPC_FAILED where one does not answer.
    explicit rpc_servers(const std::vector<std::string> & endpoints);

    std::vector<ggml_backend_dev_t> devices;

    // Waits until all that was sent has arrived. Throws as `require`.
    void settle() const;

    void count_decode() const;

    // While one lives, logits are not fetched by the thread that made it: they were not computed.
    struct without_logits {
        explicit without_logits(bool skip);
        ~without_logits();
    };

    // Throws coded_error RPC_FAILED when one was lost since: what came back in between is not to be used.
    void require() const;

    // Ends the connections that no other model of this process uses, also from another thread: what waits for an answer goes on without.
    void hang_up() const;

private:
    struct known { // counts as a user of its server
        known(const std::string & endpoint, uint64_t losses);
        known(known && other) noexcept;
        ~known();

        std::string endpoint;
        uint64_t    losses;
    };
    std::vector<known>            servers;
    std::vector<ggml_backend_ptr> connections;
};
