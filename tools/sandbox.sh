# For tools/demo and tools/play: a gateway with two workers and a stand-in for Roma,
# with keys of its own, in a folder that goes when the script does. Sourced.

bin=build/bin
sandbox=$(mktemp -d "${TMPDIR:-/tmp}/janus-XXXXXX")
socket=$sandbox/janusd.sock
pids=()

sandbox_stop() {
  local pid
  for pid in "${pids[@]}"; do
    kill "$pid" 2> /dev/null
  done
  wait "${pids[@]}" 2> /dev/null
  rm -rf "$sandbox"
}
trap sandbox_stop EXIT
trap 'exit 130' INT TERM

# What went wrong, with the last of each log.
sandbox_fail() {
  echo
  echo "$0: failed: $*"
  local log
  for log in "$sandbox"/*.log; do
    echo "--- the end of $(basename "$log")"
    tail -n 20 "$log"
  done
  exit 1
}

# sandbox_await LOG TEXT PID: until the program has written TEXT; fails when it is
# dead or takes longer than half a minute.
sandbox_await() {
  local tries=600
  until grep -q "$2" "$1" 2> /dev/null; do
    kill -0 "$3" 2> /dev/null || sandbox_fail "$(basename "$1" .log) did not start"
    [ $((tries -= 1)) -gt 0 ] || sandbox_fail "$(basename "$1" .log) is not ready after 30 s"
    sleep 0.05
  done
}

# sandbox_start TCP WEBSOCKET KCP: the gateway listens at these addresses, and serves the browser
# client if it was made; sets roma, gateway, websocket and kcp to where they are reached.
sandbox_start() {
  "$bin/janus-keys" init "$sandbox" > /dev/null || sandbox_fail "no keys"

  "$bin/janus-roma" --listen 127.0.0.1:0 > "$sandbox/janus-roma.log" 2>&1 &
  pids+=($!)
  sandbox_await "$sandbox/janus-roma.log" "listening on" $!
  roma=$(sed -n 's/^janus-roma: listening on //p' "$sandbox/janus-roma.log")

  local web=""
  [ ! -e build/web/index.html ] || web=$PWD/build/web
  cat > "$sandbox/janus.conf" << EOF
@include "secret.conf"
server = { tcp = { addr = "$1"; }; ws = { addr = "$2"; }; kcp = { addr = "$3"; };
           grpc = { addr = "127.0.0.1:0"; };
           http = { addr = "127.0.0.1:0"; web = "$web"; }; };
worker = { count = 2; };
limits = { messages_per_s = 0; bytes_per_s = 0; };  # a bench is to show the gateway, not them
control = { socket = "$socket"; };
nodes = (
  { service = "roma.player.service"; addr = "$roma"; color = "demo"; },
  { service = "roma.room.service"; addr = "$roma"; color = "demo"; }
);
EOF
  "$bin/janusd" -c "$sandbox/janus.conf" > "$sandbox/janusd.log" 2>&1 &
  pids+=($!)
  sandbox_await "$sandbox/janusd.log" "event=ready" $!
  gateway=$(sed -n 's/.*event=ready.* tcp=\([^ ]*\).*/\1/p' "$sandbox/janusd.log")
  kcp=$(sed -n 's/.*event=ready.* kcp=\([^ ]*\).*/\1/p' "$sandbox/janusd.log")
  websocket=$(sed -n 's/.*event=ready.* ws=\([^ ]*\).*/\1/p' "$sandbox/janusd.log")
}
