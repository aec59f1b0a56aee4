#!/usr/bin/env bash
# Replace the parts one at a time, under load, without losing an answer.
#
# Usage: scripts/rollout.sh [ENGINE…] [options]       the engines (both, when none is named)
#        scripts/rollout.sh --gateway [options]       the gateways
#
#   --image TAG       the engines' new image (compose)
#   --profile NAME    the engines' new profile, a file in vllm/profiles/ (compose)
#   --seconds N       how long a new engine may take to load (900)
#   --dry-run         print the plan, change nothing
#
# Each engine: drain, wait until nothing runs there, recreate, wait until it answers, compare its
# answers with the other engine's, undrain. When one is not fit, every engine gets its old image and
# profile back. Never fewer than one healthy engine; refuses to begin unless all are healthy.
#
# Exit: 0 done · 1 failed · 2 usage · 3 refused, nothing changed · 4 the new one is not fit, the old
#       one is back · 5 not running · 7 another script works on this instance
set -Eeuo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/options.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/instance.sh"

image='' profile='' load_seconds=900 parts=() renewed=() drained='' putting_back=''
what=engines
idle_seconds=150
healthy_seconds=90
most_restarts=3
# --seconds is for what is new; what ran before may take as long as it does.
old_seconds=900

main() {
  parse "$@"
  find_instance
  check_options
  require_all_healthy
  print_plan
  [[ -n $dry_run ]] && exit 0
  take_lock operate
  local part
  for part in "${parts[@]}"; do
    if [[ $what == gateways ]]; then roll_gateway "$part"; else roll_engine "$part"; fi
  done
  [[ $what == engines ]] && keep_settings
  say "done: ${parts[*]}"
}

parse() {
  while (($#)); do
    case $1 in
      --gateway | --gateways) what=gateways ;;
      --image) needs_value "$@"; image=$2; shift ;;
      --profile) needs_value "$@"; profile=$2; shift ;;
      --seconds) needs_value "$@"; load_seconds=$2; shift ;;
      --dry-run) dry_run=1 ;;
      --help | -h) usage; exit 0 ;;
      -*) die 2 "unknown option: $1" "" "scripts/rollout.sh --help" ;;
      *) is_engine "$1" || die 2 "no such engine: $1" "engines: ${engines[*]}" "scripts/rollout.sh --help"
         parts+=("$1") ;;
    esac
    shift
  done
  [[ $load_seconds =~ ^[0-9]+$ ]] || die 2 "--seconds must be a number" "$load_seconds" "--seconds 900"
  if [[ $what == gateways ]]; then
    ((${#parts[@]} == 0)) || die 2 "--gateway takes no engine" "${parts[*]}" "scripts/rollout.sh --gateway"
    parts=("${gateways[@]}")
  elif ((${#parts[@]} == 0)); then
    parts=("${engines[@]}")
  fi
}

check_options() {
  [[ -z $image$profile ]] && return
  [[ $what == engines ]] ||
    die 2 "--image and --profile are for engines" "--gateway was given" "build with: docker compose build"
  [[ $mode == compose ]] ||
    die 2 "--image and --profile need compose" "a try instance runs" "leave them out"
  # Both engines have one setting: with two images, the next «up» would bring one of them back.
  ((${#parts[@]} == ${#engines[@]})) ||
    die 2 "--image and --profile concern every engine" "only ${parts[*]} was named" "name none"
  if [[ -n $profile ]]; then
    [[ $profile == *.yaml ]] || profile+=.yaml
    [[ -f $root/vllm/profiles/$profile ]] ||
      die 2 "no such profile: $profile" "$(cd "$root/vllm/profiles" && echo *.yaml)" "--profile qwen2.5-7b"
  fi
  if [[ -n $image ]] && ! docker image inspect "$image" >/dev/null 2>&1; then
    die 3 "the image is not on this machine: $image" "" "docker pull $image"
  fi
}

require_all_healthy() {
  local gateway engine
  for gateway in "${gateways[@]}"; do
    part_pid "$gateway" >/dev/null ||
      die 3 "$gateway does not run" "a rollout needs both gateways" "./scripts/status.sh"
    for engine in "${engines[@]}"; do
      in_gateway "$gateway" gateway.rollout_check wait "$engine" healthy --seconds 5 ||
        die 3 "$engine is not healthy" "as $gateway sees it" "./scripts/engine.sh status"
    done
  done
}

print_plan() {
  say "plan: replace ${parts[*]}, one after the other${image:+, image $image}${profile:+, profile $profile}"
}

# ---- engines ------------------------------------------------------------------------------------

roll_engine() {
  local engine=$1 complaint code=0
  other_is_healthy "$engine" ||
    die "$((${#renewed[@]} ? 1 : 3))" "the other engine is not healthy" "$engine was not touched" "./scripts/engine.sh status"
  # From here on a failure must not leave the engine drained for a day.
  drained=$engine
  trap at_exit EXIT
  step "$engine: drain" in_gateway "$(some_gateway)" gateway.admin drain "$engine" >&2
  complaint=$(renew "$engine") || code=$?
  ((code == 0)) || give_up "$engine" "$code" "$complaint"
  step "$engine: undrain" in_gateway "$(some_gateway)" gateway.admin undrain "$engine" >&2
  drained=''
  everywhere "$engine" healthy "$healthy_seconds" ||
    die 1 "$engine got no work again" "within $healthy_seconds s" "./scripts/engine.sh status"
  renewed+=("$engine")
}

# Prints what went wrong. Fails with 10 when the old engine is still there, 11 when the new one does
# not answer, 12 when its answers are no good.
renew() {
  local engine=$1
  everywhere "$engine" idle "$idle_seconds" 2>&1 || return 10
  step "$engine: recreate" new_settings recreate "$engine" >&2 || {
    echo "it could not be recreated"
    return 11
  }
  sleep 2 # the gateways look once a second: the old process must be seen to be gone
  step "$engine: wait until it answers" until_alive "$engine" "$load_seconds" >&2 || {
    echo "it did not answer within $load_seconds s, or ended again and again"
    return 11
  }
  in_gateway "$(some_gateway)" gateway.rollout_check canary "$engine" --against "$(other_engine "$engine")" 2>&1 ||
    return 12
}

# until_alive ENGINE SECONDS, in short turns: one that ends at every start is not waited for.
until_alive() {
  local engine=$1 end=$((SECONDS + $2))
  until everywhere "$engine" alive 5 2>/dev/null; do
    ((SECONDS < end)) && (($(restarts "$engine") < most_restarts)) || return 1
  done
}

# The image and profile of this rollout, for one command only: .env still has the old ones.
new_settings() {
  local -a chosen=()
  [[ -n $image ]] && chosen+=("VLLM_IMAGE=$image" "VLLM_IMAGE_CPU=$image")
  [[ -n $profile ]] && chosen+=("VLLM_PROFILE=$profile" "VLLM_PROFILE_CPU=$profile")
  (
    ((${#chosen[@]})) && export "${chosen[@]}"
    "$@"
  )
}

# give_up ENGINE CODE COMPLAINT: see renew.
give_up() {
  local engine=$1 code=$2 complaint=$3
  warn "$engine is not fit: $complaint"
  if [[ -n $image$profile ]]; then
    ((code == 10)) || restore_settings "$engine"
    put_back_renewed
    die 4 "$engine could not be replaced; what ran before is back" "$complaint" "./scripts/engine.sh status"
  elif [[ -n $putting_back ]]; then
    die 1 "$engine has the new settings still" "$complaint" "./scripts/rollout.sh $engine"
  elif ((code == 12)); then
    # The same settings as before: there is nothing to put back, and its answers must reach nobody.
    drained=''
    die 1 "$engine gives bad answers and stays drained" "$complaint" "./scripts/engine.sh undrain $engine, once mended"
  fi
  die 1 "$engine could not be replaced" "$complaint" "./scripts/status.sh; the other engine serves"
}

restore_settings() {
  local engine=$1
  forget_failed_starts "$engine"
  step "$engine: put the old settings back" recreate "$engine"
  sleep 2 # as in renew
  step "$engine: wait until it answers" until_alive "$engine" "$old_seconds" &&
    in_gateway "$(some_gateway)" gateway.admin undrain "$engine" >&2 &&
    everywhere "$engine" healthy "$healthy_seconds" && drained='' && return
  die 1 "$engine has its old settings, and does not answer" "" "./scripts/status.sh; the other engine serves"
}

# The engines that took the new settings before this one did not: the same way, with what .env says.
put_back_renewed() {
  local engine earlier=("${renewed[@]}")
  image='' profile='' putting_back=1
  [[ -z $drained ]] || in_gateway "$(some_gateway)" gateway.admin undrain "$drained" >&2
  for engine in "${earlier[@]}"; do roll_engine "$engine"; done
}

# No engine stays drained for a day, and nobody has to guess what an interruption left behind.
at_exit() {
  local code=$?
  [[ -z $drained ]] || in_gateway "$(some_gateway)" gateway.admin undrain "$drained" >&2 || true
  if ((code == 130)) && [[ -n $image$profile$putting_back ]]; then
    warn "interrupted: engines may run with what is new, and .env has what was before"
    warn "once both are healthy: ./scripts/rollout.sh for the old on all, this command for the new"
  fi
}

other_is_healthy() {
  everywhere "$(other_engine "$1")" healthy 10
}

# everywhere ENGINE STATE SECONDS: until both gateways see it so.
everywhere() {
  local gateway
  for gateway in "${gateways[@]}"; do
    in_gateway "$gateway" gateway.rollout_check wait "$1" "$2" --seconds "$3" || return 1
  done
}

# Only now, with every engine replaced and fit, does .env name what runs.
keep_settings() {
  [[ -n $image ]] && set_setting "$(setting VLLM_IMAGE)" "$image"
  [[ -n $profile ]] && set_setting "$(setting VLLM_PROFILE)" "$profile"
  return 0
}

setting() {
  if grep -q '^COMPOSE_FILE=.*compose\.cpu\.yaml' "$root/.env" 2>/dev/null; then
    printf '%s_CPU\n' "$1"
  else
    printf '%s\n' "$1"
  fi
}

set_setting() {
  local name=$1 value=$2
  cp -p "$root/.env" "$root/.env.previous"
  { sed "/^$name=/d" "$root/.env.previous"; printf '%s=%s\n' "$name" "$value"; } >"$root/.env.partial"
  mv "$root/.env.partial" "$root/.env"
}

# ---- gateways -----------------------------------------------------------------------------------

roll_gateway() {
  local gateway=$1 engine
  step "$gateway: recreate (its answers end or move first)" recreate "$gateway"
  for _ in {1..120}; do
    part_pid "$gateway" >/dev/null && break
    sleep 0.5
  done
  for engine in "${engines[@]}"; do
    in_gateway "$gateway" gateway.rollout_check wait "$engine" healthy --seconds "$healthy_seconds" ||
      die 1 "$gateway does not see $engine healthy" "" "./scripts/status.sh; the other gateway serves"
  done
  sleep 1 # the door must have seen it too, before the other one goes
}

main "$@"
