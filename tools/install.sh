#!/bin/bash
# Puts a first configuration into /etc/enforcer and the command onto PATH. Never overwrites what is there.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "install: must be root; use sudo make install" >&2; exit 1; }
install -d -m 755 /etc/enforcer /etc/enforcer/policies /etc/enforcer/geo
for policy in policies/*.yaml; do
    target=/etc/enforcer/policies/$(basename "$policy")
    [ -e "$target" ] || install -m 644 "$policy" "$target"
done
if [ ! -e /etc/enforcer/enforcer.yaml ]; then
    cat > /etc/enforcer/enforcer.yaml <<'YAML'
# Enabled policies, in order; the first rule that matches decides, and no match is a denial.
policies: [eu-only]
YAML
fi
ln -sf "$PWD/.venv/bin/enforcer" /usr/local/bin/enforcer
.venv/bin/enforcer policy check
echo "installed: configuration in /etc/enforcer; start with: sudo enforcer run"
