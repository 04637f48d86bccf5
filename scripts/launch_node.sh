#!/usr/bin/env bash
# What scripts/launch.slurm runs on the nodes of its job:
#
#   launch_node.sh ray                     be a part of the job's Ray cluster until the job ends
#   launch_node.sh await-ray               wait until all nodes are part of it
#   launch_node.sh accelerate launch ...   this node's processes of a training
set -euo pipefail
unset CDPATH # with it, cd may go to another folder of the same name, and prints its path

cd "$(dirname "$0")/.."
if [ -d .venv ]; then
  PATH="$PWD/.venv/bin:$PATH"
fi

be_a_ray_node() {
  local how=(--head --port="$RAY_PORT" --temp-dir="$RAY_FOLDER" --include-dashboard=false)
  if [ "$SLURM_NODEID" != 0 ]; then
    how=(--address="$MAIN_ADDRESS:$RAY_PORT")
    until (: <"/dev/tcp/$MAIN_ADDRESS/$RAY_PORT") 2>/dev/null; do sleep 1; done
  fi
  ray start --block --disable-usage-stats --num-cpus="$SLURM_CPUS_ON_NODE" \
    --object-store-memory=536870912 "${how[@]}" >/dev/null &
  # A signal, and there may be several, ends a wait: go on until Ray has cleaned up.
  trap 'kill $! 2>/dev/null || true' TERM
  while kill -0 $! 2>/dev/null; do wait $! || true; done
  rm -rf "$RAY_FOLDER"
}

await_ray() {
  until (: <"/dev/tcp/$MAIN_ADDRESS/$RAY_PORT") 2>/dev/null; do sleep 1; done
  python - "$SLURM_NNODES" <<'END'
import sys, time, ray
ray.init(logging_level="ERROR", log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    time.sleep(1)
END
}

case ${1:-} in
  ray) be_a_ray_node ;;
  await-ray) await_ray ;;
  accelerate)
    exec python scripts/launch.py --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" \
      --main_process_ip "$MAIN_ADDRESS" --main_process_port "$MAIN_PORT" "${@:3}"
    ;;
  *)
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
