"""Which shell commands run unasked: a table of those that are asked, one of those that may run."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest

import mini_coding_agent as mca

MODULE = sys.modules[mca.read_only_argv.__module__]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A workspace full of traps, with a secret folder and a similarly named one beside it."""
    top = tmp_path_factory.mktemp("gate").resolve()
    ws = top / "ws"
    for folder in (
        ws / "src",
        ws / "tests",
        ws / "sub" / ".git",
        ws / ".git",
        ws / ".mini-coding-agent" / "sessions",
        top / "ws-evil",
        top / "ws2",
        top / "out",
    ):
        folder.mkdir(parents=True)  # fmt: skip
    for file in (
        ws / "README.md",
        ws / "src" / "a.py",
        ws / "src" / "b.py",
        ws / "data.csv",
        ws / ".git" / "config",
        top / "ws-evil" / "a",
        top / "ws2" / "a",
        top / "out" / "a",
        ws / ".mini-coding-agent" / "sessions" / "s.json",
    ):
        file.write_text("def main\n")  # fmt: skip
    links = {
        "link-out": "../out", "link-file": "/etc/passwd", "link-git": ".git",
        "link-chain": "link-out", "link-none": "../out/none", "link-loop": "link-loop",
        "link-null": "/dev/null", "link-src": "src",
        "link-proc": "/proc/self", "link-state": ".mini-coding-agent", "src/link-up": "../..",
    }  # fmt: skip
    for name, target in links.items():
        (ws / name).symlink_to(target)
    for number in range(1200):
        (ws / f"deep{number}").symlink_to(f"deep{number + 1}")
    os.mkfifo(ws / "pipe")
    (ws / "link-pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(ws / "sock"))
    return ws


@pytest.fixture
def everything_installed(monkeypatch):
    """Take the machine out of the tables: every program exists, and no repository is hostile."""
    monkeypatch.setattr(MODULE, "find_program", lambda name, root: f"/usr/bin/{name}")
    monkeypatch.setattr(MODULE, "git_runs_foreign_programs", lambda root: False)


def commands(text):
    """Split a table: three blanks or a line feed stand between two commands."""
    rows = "\n".join(line for line in text.splitlines() if not line.startswith("###"))
    return [row for row in re.split(r" {3,}|\n", rows) if row]


MUST_ASK = commands(r"""
### no program, or none we know
rm README.md   rm -rf .   mv README.md x   cp README.md x   touch x   mkdir x   ln -s /etc x
chmod 777 README.md   chown nobody README.md   dd if=README.md of=x   tee x
truncate -s 0 README.md   install README.md x   kill 1   sudo ls   nohup ls   time ls   xargs ls
env   printenv PATH   export A=b   alias ls=rm   source x   . x   eval ls   exec ls   command ls
builtin ls   cd src   cd /   cd   watch ls   top   less README.md   man ls   vi README.md
history   ps aux   docker ps   type ls   printf x   jq . data.csv   awk 1 README.md   perl -v   Ls
cat.exe README.md   busybox ls   unknown-program   yes   seq 1 99999999   base64 README.md
xxd README.md x   strings README.md   patch -p1   tar tf x.tar
### they run project code
pytest   pytest -q   pytest --version   python x.py   python -c pass   python -m pytest   python
python3   python3 -m pip --version   python --version x.py   python -V -c pass   python -c pass -V
node   node --eval 1   node -v x.js   npm test   npm --version   npx x   make   make -n
make --version   cargo --version   go version   pip   pip list   pip install x
pip --version install   bash   sh x.sh   bash -c ls   ./ls   ./x.sh   src/ls   ../ls   /bin/ls
/usr/bin/git status   bin/cat README.md
### the network
curl http://example.com   wget http://example.com   ping localhost   ssh host   nc localhost 1
dig example.com   git fetch   git pull   git push   git clone x   git ls-remote
git ls-remote origin   git remote show origin   git remote update   git remote prune origin
git archive --remote=x HEAD   hostname -f   hostname -i   hostname evil
### shell syntax
ls; rm x   ls ;rm x   ls && rm x   ls & rm x   ls || rm x   ls | sh   ls > x   ls >x   ls >> x
ls >| x   ls 2> x   ls 2>&1   ls < x   ls &> x   cat << E   cat <(ls)   cat <<< x   ls $HOME
ls ${HOME}   ls $(pwd)   ls `pwd`   ls $IFS   cat${IFS}README.md   ls ~   ls ~/x   cat *
cat *.py   cat src/[ab].py   cat src/{a,b}.py   ls !   ls !!   ls !$   ! ls   (ls)   { ls; }
ls # comment   ls #x   #ls   ls \   ls \-la   l\s   cat a\ b   cat README.md\   A=b ls   A= ls
PATH=. ls   LD_PRELOAD=x ls   GIT_PAGER=x git log   GIT_EXTERNAL_DIFF=x git diff   IFS=x ls   =ls
a=b   ls {}   echo $PATH   echo $(id)   echo `id`   echo "$PATH"   echo "$(id)"   echo "`id`"
echo '$PATH'   echo 'a;b'   grep "a|b" README.md   grep "a*" README.md   grep "(a)" README.md
grep "a\b" README.md   find . -name "*.py"   find . ( -name x )   find . ! -name x
test -f README.md || rm README.md   [ -f README.md ]   [[ -f README.md ]]   if true
### quote tricks
"ls"   'ls'   "ls" -la   l"s"   l's'   ls "src   ls 'src   ls "src'   ls "a"b   ls a"b"
ls "a"'b'   ls ""   ls ''   ls "" src   ls "a\"b"   ls "it's"   ls 'say "x"'   git "stash list"
git "stash" "list x"   "git status"   "git" status   ls -"la"   ls --color="never"   ls "-la
ls "$"   ls ";"   ls "a	b"   ls "#x"   ls $'a'   ls $"a"   cat "link-out"/a   find . "-exec" rm
find . "-delete"   git log "--output=x"   sort "-o" x README.md   git "-c" a=b status
cat "/etc/passwd"   cat '/etc/passwd'   cat "../out/a"
### paths outside
ls /   ls ..   ls ../   ls ../ws-evil   ls ../ws/../ws-evil   ls src/../..   ls //   ls /etc
cat /etc/passwd   cat /etc/../etc/passwd   cat ../out/a   cat ../ws-evil/a
cat README.md /etc/passwd   cat README.md ../out/a src/a.py   cat link-file   cat link-out/a
cat link-none   cat link-null   cat link-proc/environ   cat link-proc/cwd/README.md
cat link-proc/root/etc/passwd   cat src/link-up/out/a   cat src/link-up/ws/README.md/../../out/a
cat link-src/../../out/a   ls link-out   ls link-chain   ls -d link-out   ls src/link-up
wc -l ../out/a   head /etc/shadow   head -n 5 ../out/a   stat /etc/passwd   file /etc/passwd
du -sh /   du ..   df /   tree /   tree ..   find / -name x   find .. -name x
find . /etc -name x   find -name x /etc   find . -newer /etc/passwd   find . -newer link-file
grep x /etc/passwd   grep -r x /   grep -r x ..   grep -rn x link-out
grep -n x README.md /etc/passwd   grep -e x /etc/passwd   grep -rne x /etc
grep --regexp=x /etc/passwd   grep /etc/passwd -e x   grep x -e /etc/passwd
grep x README.md -m /etc/passwd   rg x /   rg -e x /etc   rg x ../out   rg --files /
sort /etc/passwd   sort README.md -k /etc/passwd   uniq /etc/passwd   cut -d : -f 1 /etc/passwd
cut -d: -f1 /etc/passwd   tac /etc/passwd   cmp README.md /etc/passwd   diff README.md /etc/passwd
diff ../out/a README.md   diff -u README.md ../out/a   realpath /etc   realpath ..
basename /etc/passwd   dirname /etc/passwd   sha256sum link-file   sed -n 1,5p /etc/passwd
test -f /etc/passwd   which ../out/a   git diff /etc/passwd README.md
git diff README.md ../out/a   git diff -- ../out/a   git log -- /etc   git log ../..
git blame ../out/a   git ls-files ..   git ls-files /etc   git status ..   git status /
git grep x -- /etc   git grep x ../out   grep -rn /api/users src   grep -rn ../x src
find . -name /etc/passwd   find . -namex   find . -newer/etc/passwd   echo /etc/passwd   echo ../x
git log -S /etc   git log -S ../x   git log --author /etc   cut -d /etc -f 1 README.md
sed -n 1,5p README.md 1,6p /etc/passwd
### options behind an operand that some systems take for the output file
uniq README.md -c   date +%F -u
### devices, pipes, proc
cat -   cat - README.md   cat README.md -   grep x -   sort -   diff - README.md   head -
cat /dev/stdin   cat /dev/zero   cat /dev/tty   cat /proc/self/environ
cat /proc/self/cwd/README.md   cat /proc/self/cwd/../out/a   ls /proc/self/root
cat /sys/kernel/notes   cat pipe   cat link-pipe   head -n 1 pipe   file pipe   grep x pipe
git diff README.md pipe   cat sock   tail link-null   cat link-loop
### protected folders
cat .git/config   ls .git   ls -la .git   ls .GIT   ls .Git/hooks   cat .git   cat sub/.git
ls sub/.git   cat link-git/config   ls link-git   cat src/../.git/config   ls .git/../src
cat .git/../README.md   find .git -name x   grep -r x .git   du -sh .git   ls .mini-coding-agent
cat .mini-coding-agent/sessions/s.json   cat .MINI-CODING-AGENT/sessions/s.json
grep -r x .mini-coding-agent   ls link-state   cat link-state/sessions/s.json
find . -newer .git/index   stat .git/config   git diff README.md .git/config   git log -- .git
test -e .git/hooks/x
### never ends
tail -f README.md   tail -F README.md   tail --follow README.md   tail --retry README.md
tail -5f README.md   tail +1f README.md   tail -qf README.md   tail -n 5 -f README.md
tail README.md -f   tail -n 5f README.md   tail --pid=1 -f README.md
### options that write
sort -o x README.md   sort -ox README.md   sort README.md -o x   sort -uo x README.md
sort --output=x README.md   sort --output x README.md   sort -T /tmp README.md
sort --compress-program=x README.md   sort --files0-from=x   sort --files0-from=-
sort --random-source=x README.md   sort -S 90% README.md   sort -t -o x   sort -k -o x
sort +1 README.md   uniq README.md out.txt   uniq -c README.md out.txt   tree -o x
tree -Io x out.txt   tree -I x   tree -P x   tree -L2o x   tree -R -H . -L 1   tree -l
tree --fromfile x   tree --info   file -C -m x   file -C   file -m x README.md   file -f x
file -z README.md   file -s README.md   date -s 2020-01-01   date --set=2020-01-01
date 010100002020   date 2020   date -f README.md   date -d now   date +%F +%T   find . -delete
find . -exec rm x   find . -exec rm x +   find . -ok rm x   find . -fprint x   find . -fprintf x y
find . -fls x   find . -name x -delete   find . -name -delete   find . -type f -exec cat x +
find . -files0-from x   find -files0-from -   find -L .   find -H .   find -follow
find . -follow   find -L . -name x   find -- -delete   find . -- -delete   find -D exec .
find -O3 .   find . -regex x   find . -name   find . -newer   find . -nam x
find . -print -exec x   sed -i s/a/b/ README.md   sed s/a/b/ README.md   sed -n s/a/b/p README.md
sed -n -i 1p README.md   sed -n 1p -i README.md   sed -ni 1p README.md   sed -in 1p README.md
sed -n -e 1p README.md   sed -ne 1p README.md   sed -n -f x README.md   sed -n 1w README.md
sed -n 1e README.md   sed -n "1w x" README.md   sed -n "1e id" README.md   sed -n 1r README.md
sed -n "1,5p;w x" README.md   sed -n 1,5p,w README.md   sed -n 1,+5p README.md
sed -n /x/p README.md   sed -n p README.md   sed 1,5p README.md   sed -n 1,5p -- README.md
diff --to-file=README.md x   diff -r src tests   diff -ru src tests   diff src tests
diff README.md src   diff src README.md   diff --recursive src tests   diff -l README.md data.csv
### options that run programs, follow links, read lists of files
grep -R x .   grep -nR x .   grep -rR x .   grep --dereference-recursive x .   grep -f x README.md
grep -fx README.md   grep -rf x .   grep --file=x README.md   grep -d recurse x .
grep -D read x pipe   grep --devices=read x .   grep --directories=recurse x .
grep --exclude-from=x y .   grep --inc=x y .   grep -nO x .   grep -S x .   grep -- -n README.md
grep -- -n /etc/passwd   grep -- -e x /etc/passwd   grep -e -f README.md   grep -e   grep -m
grep -m x y README.md   grep -A -f x README.md   egrep -f x README.md   egrep -R x .
fgrep -f x README.md   rg --pre x y   rg --pre=x y   rg -z x   rg --search-zip x   rg -nz x
rg -L x   rg --follow x   rg -f x   rg -nf x   rg --file=x   rg --hostname-bin=x y   rg --hidden x
rg -. x   rg -u x   rg --no-ignore x   rg --unrestricted x   rg --ignore-file x y
rg --files --follow   rg --files --pre x   rg x --files /etc   rg -l --files /etc
rg --type-add x:include:y z   ls -L   ls -lL   ls -laH   ls -H src   ls --dereference
ls --dereference-command-line   ls -I x   ls --help   ls --al   ls --recursive=x   ls --all=x
ls --color   ls --color= /etc   ls -l-all   ls -l=a   ls -la -Z   ls -l --   ls -- src
ls -la --evil   ls ---all   ls -   ls --   du -L .   du --dereference .   du --files0-from=x
du -X x .   du --exclude-from=x .   du --max-depth   df --output=x   wc --files0-from=x
wc -l --files0=x   stat -L README.md   stat -f README.md   stat --printf=x README.md
stat -c -L README.md   md5sum -c x   sha256sum --check x   cat --evil   cat -x README.md
head --evil README.md   head -n README.md   head -n x README.md   head -z README.md
head -n -f README.md   head -5x README.md   head -NUMBER README.md   id root   whoami x   pwd -x
pwd src   which -x ls   echo -x   echo -e x   echo -n -e x   echo --
realpath --relative-to=/etc README.md   realpath -L README.md   test -f README.md -o -x   true x
### git: options before the subcommand
git   git -c a=b status   git -c core.fsmonitor=x status   git -c core.pager=x log
git -c alias.x=y x   git -C .. status   git -C src status   git --git-dir=x status
git --work-tree=x status   git --exec-path=x status   git --exec-path
git --config-env=a=b status   git --namespace=x log   git --bare log   git -p log
git --paginate log   git -P log   git --no-pager   git --no-pager -c a=b log
git --no-pager --paginate log   git --no-pager --no-pager log   git --no-pager push   git --help
git help log   git --version --build-options
### git: subcommands that write or run
git add .   git commit -m x   git checkout .   git switch main   git restore README.md   git reset
git clean -n   git rm README.md   git mv README.md x   git merge main   git rebase main
git cherry-pick HEAD   git revert HEAD   git stash   git stash pop   git stash show
git stash list x   git stash list -p   git branch x   git branch -d x   git branch -D x
git branch -m x   git branch -v x   git branch -f x HEAD   git branch -u origin/x
git branch --set-upstream-to=x   git branch --edit-description   git branch -c x
git branch --lis   git branch --list -d x   git branch --list x -d   git branch --list x -m
git branch --show-current x   git branch --format=x   git tag x   git tag -d x   git tag -a x
git tag -s x   git tag -v x   git tag -m x   git tag -f x   git tag -l -d x   git tag -l x -d
git tag --list x -f   git tag --verify x   git remote add x y   git remote remove x
git remote set-url x y   git remote -v update   git remote -v show   git remote get-url --push x
git config user.name x   git config --list   git config -e   git maintenance run
git bisect start   git bisect run x   git submodule status   git submodule foreach ls
git worktree add x   git worktree   git apply x   git init   git daemon   git difftool
git mergetool   git filter-branch   git archive -o x HEAD   git format-patch HEAD^
git send-email x   git update-index --refresh   git update-ref x HEAD   git credential fill
git var GIT_EDITOR   git verify-commit HEAD   git reflog expire --all   git reflog delete HEAD
git reflog x   git reflog -p   git symbolic-ref HEAD refs/heads/x   git symbolic-ref -d HEAD
git st   git status; ls   git rev-parse --sq-quote x   git rev-parse --resolve-git-dir x
### git: options that write, run or leave
git log --output=x   git log --output x   git log -p --output=x   git log -p--output=x
git log --ext-diff   git log -p --ext-diff   git log --textconv   git log --show-signature
git log --format=%G?   git log --format=%GS   git log --pretty=%GK   git log --pretty=format:%GS
git log --date=format:%99999999d   git show --date=format:%9Y   git log "--date=format:%d %5000000m"
git log --format=%+GS   git log "--format=% GS"   git log "--format=%h %GS"
git log --pretty=evil   git log --format=evil   git log --pretty=ful   git log --pretty evil
git log --format   git log --pretty=format:%(trailers)   git log -O x   git log -pO x
git log --stdin   git log --no-index   git log --evil   git log -- --output=x   git log -- -p
git log --grep   git log -n   git log -n x   git log -n -p   git log --author --output=x
git log --author= /etc   git log --since /etc   git log --glob=x   git log --submodule=diff
git log --diff-merges=x   git log --remerge-diff   git log --no-pager   git log -L
git log -S --output=x   git log -5 --output=x   git log HEAD --output=x
git log HEAD -- README.md --output=x   git diff --output=x   git diff --output x
git diff --ext-diff   git diff --textconv   git diff --no-index README.md data.csv
git diff --no-index README.md /etc/passwd   git diff -O x   git diff -Ox
git diff --submodule=log   git diff --ignore-submodules=none   git diff -U   git diff -U 3
git diff --no-ext-diff --ext-diff   git diff --relative=..   git diff -I x
git diff HEAD^ --output=x   git show --output=x   git show --ext-diff   git show --textconv
git show --show-signature   git show --format=%GS   git show HEAD --output=x   git status -v
git status --verbose   git status --ignore-submodules=none   git status --porc
git status --pathspec-from-file=x   git blame --textconv README.md
git blame --contents /etc/passwd README.md   git blame --contents=x README.md
git blame -S x README.md   git blame --ignore-revs-file=x README.md
git blame --output=x README.md   git grep -O x   git grep -Oless x
git grep --open-files-in-pager x   git grep --open-files-in-pager=x y   git grep --no-index x
git grep --textconv x   git grep -f x   git grep --untracked x   git grep --recurse-submodules x
git grep --ext-grep x   git grep -e x -- /etc   git ls-files -X x   git ls-files --exclude-from=x
git ls-files --exclude-per-directory=x   git describe --dirty   git shortlog --output=x
git shortlog --format=%GS   git rev-list HEAD --output=x   git rev-list --format=%GS HEAD
git rev-list --missing=print HEAD   git cat-file --batch   git cat-file --textconv HEAD:x
git cat-file --filters HEAD:x   git cat-file -p HEAD --textconv   git cat-file -p
git diff-tree -p HEAD   git show HEAD@{1}   git log HEAD~1   git show -- -x
git log -- README.md -p   git diff -- README.md --date=x/../../../../../etc/passwd
git diff -- README.md -- README.md   git log --format=oneline%GS   git log --format=%h%%G?
git log --pretty=reference2   git branch -d
""")
MUST_ASK += [
    "", " " * 50, "ls\n", "ls\nrm x", "ls\rrm x", "ls\r", "\nls", "ls\tsrc", "\tls", "ls src\t",
    "ls\x0bsrc", "ls\x0csrc", "ls\x00", "ls \x00-la", "ls\x1b[2K", "ls \x7f", "ls \x08",
    "ls\x85rm", "ls\u2028rm x", "ls\u00a0-la", "ls\u2003-la", "ls\u200b", "ls \u202esrc",
    "\ufeffls", "ls\u00ad", "ｌｓ", "ls －la", "ls \u2013la", "ls \u2212la", "сat README.md",
    "cat README．md", "cat src／a.py", "cat ．．/out/a", "cat ‥/out/a", "cat .ɢit/config",
    "cat .git\u200c/config", "cat .gıt/config", "git‐status", "ls ；rm x", "ls ｜ sh",
    "cat \u2018README.md\u2019", "cat \u201cREADME.md\u201d", "grep ä README.md",
    "head -٣ README.md", "head -n ٣ README.md", "head -n５ README.md", "git log -²", "cat \ud800",
    "cat \udcff", "ls \U000e0001", "cat README.md" + " " * 3000 + "; rm x",
    "cat" + " README.md" * 1000, "cat " + "a" * 3000, "ls " + "../" * 100, "ls && " * 60 + "rm x",
]  # fmt: skip

MAY_RUN = commands(r"""
ls   ls -la   ls -lah src   ls -l src tests   ls -1   ls -R src   ls -lt   ls -d src
ls --color=never   ls -la --color=auto src/   ls "src"   ls 'src'   ls link-src   ls src/missing
pwd   cat README.md   cat -n src/a.py   cat src/a.py src/b.py   cat ./src/a.py
cat src/../README.md   cat missing.txt   cat "file with spaces.txt"   head README.md
head -n 20 src/a.py   head -n20 src/a.py   head -20 src/a.py   head -c 100 README.md
head -n -5 README.md   tail README.md   tail -n 50 src/a.py   tail -50 src/a.py
tail -n +10 src/a.py   tail --lines=5 README.md   wc -l src/a.py   wc README.md
wc -lw README.md data.csv   file README.md   stat README.md   du -sh .   du -h --max-depth=1
du -d 1 src   df -h   df -h .   tree   tree -L 2   tree src   tree -a -L 1   grep main src/a.py
grep -n "def main" src/a.py   grep -rn main .   grep -rn "def main" src
grep -rniE "def .main" src tests   grep -rnA 3 main src   grep -A3 -B2 main src/a.py
grep -rl main .   grep -c main src/a.py   grep -rn --include=README.md main .
grep -rn -e main -e other src   grep -v main src/a.py   grep -w main src/a.py
grep -rn "import os" . --exclude-dir=tests   grep main src -rn   grep -n "a#b" src/a.py
grep -n "[a-z]" src/a.py   grep -n "^def main" src/a.py   grep -oP "def main" src/a.py
egrep main src/a.py   fgrep -n main src/a.py   rg main   rg -n "def main" src   rg -i main -t py
rg -l main src   rg --files   rg --files src   rg -C 2 main src   rg -e main src   find .
find . -name a.py   find src -type f   find . -maxdepth 2 -type d
find . -type f -name a.py -print   find . -size +100k   find . -mtime -7   find . -newer README.md
find . -type f -not -name a.py   find . -iname readme.md   find . -empty
find . -name a.py -o -name b.py   find . -path ./src -prune -o -type f -print   sort README.md
sort -u data.csv   sort -t, -k2,2n data.csv   sort -t , -k 2 data.csv   sort -rn data.csv
cut -d, -f1 data.csv   cut -d , -f 1,3 data.csv   cut -c1-10 README.md   basename src/a.py
basename src/a.py .py   dirname src/a.py   realpath src   echo hello   echo hello world
echo "hello world"   date   whoami   id   uname -a   uname   hostname   which python3
which git node   sha256sum README.md data.csv   sed -n 1,20p src/a.py   sed -n 5p src/a.py
sed -n '1,5p' src/a.py   sed -n "10,20p" src/a.py   python --version   python3 --version
python3 -V   pip --version   node --version   node -v   git --version   git status   git status -s
git status -sb   git status --short   git status --porcelain   git status --porcelain=v1 --branch
git status -uno   git status src   git --no-pager log --oneline -5   git --no-pager diff   git log
git log --oneline   git log --oneline -5   git log --oneline -n 10   git log -n5 --stat
git log -p -1   git log -1   git log --graph --oneline --all --decorate
git log --oneline main..feature   git log --author=alice --since=yesterday   git log --format=%H
git log "--format=%h %an %s" -3   git log --pretty=format:%h -5   git log --pretty=oneline
git log -- src/a.py   git log --follow src/a.py   git log -S main --oneline   git log -Smain
git log --name-only -2   git log --grep=fix -i   git log -L 1,5:src/a.py
git log --date=short --reverse   git log --date=format:%Y-%m-%d   git log -p   git log -p -3 --stat   git diff   git diff --stat
git diff --cached   git diff --staged   git diff HEAD   git diff HEAD^   git diff HEAD^ HEAD
git diff main..feature   git diff main...feature --stat   git diff src/a.py   git diff -- src/a.py
git diff HEAD -- src   git diff --name-only   git diff --name-status HEAD^   git diff -U5
git diff -w   git diff --word-diff   git diff --check   git show   git show HEAD
git show HEAD --stat   git show HEAD^   git show HEAD^:src/a.py   git show HEAD:README.md
git show --name-only HEAD   git show -s --format=%B HEAD   git show abc1234   git branch
git branch -a   git branch -vv   git branch -r   git branch --show-current   git branch --list
git branch --list main   git branch --merged   git tag   git tag -l   git tag -l v1.0   git remote
git remote -v   git ls-files   git ls-files src   git ls-files -m
git ls-files --others --exclude-standard   git rev-parse HEAD   git rev-parse --short HEAD
git rev-parse --abbrev-ref HEAD   git rev-parse --show-toplevel
git rev-parse --is-inside-work-tree   git describe   git describe --tags --always
git blame src/a.py   git blame -L 1,5 src/a.py   git blame -L1,5 src/a.py
git blame -w HEAD -- src/a.py   git stash list   git reflog   git grep main
git grep -n "def main"   git grep -n main -- src   git grep -in main HEAD
git grep -e main -- src   git log --max-count=3 --no-merges   git show -5 --oneline
git rev-parse --git-dir
""")

# Harmless, but outside the rules (a pipe, a star, a brace, a tilde, two commands, a rare program):
# these cost a question. They are here so that the figure below is honest.
EVERYDAY_BUT_ASKED = commands(r"""
ls *.py   ls src/*.py   ls -la | head   cat README.md | head -20   cat README.md | wc -l
grep -rn main . | head -20   grep -rn main --include=*.py .   grep -rn --include="*.py" main .
grep -rnE "def|class" src   find . -name "*.py"   find . -name '*.md' -type f
find . -type f | wc -l   find . -name "*.py" -not -path "./.git/*"
find . -type f -exec wc -l {} +   rg "foo|bar" src   rg -g "*.py" main   ls src && cat README.md
cd src && ls   cat src/a.py; cat src/b.py   git log --oneline | head -5   git diff HEAD~1
git show HEAD~2   git log HEAD~5..HEAD   git status && git diff   git stash show -p
git show stash@{0}   git config --list   git config --get remote.origin.url   git ls-files | wc -l
git -C src status   wc -l src/*.py   wc -l *.py   diff -r src tests   tree -I node_modules
awk "{print $1}" data.csv   awk -F, "{print $1}" data.csv   sed -n "/def main/,/return/p" src/a.py
sort data.csv | uniq -c   cat data.csv | sort | uniq   echo $PATH   echo $HOME   ls ~   ls ..
ls /   cat /etc/os-release   env   printenv PATH   ps aux   pip list   pip show pytest   npm ls
node -p 1   python -c "print(1)"   jq . package.json   less README.md   strings README.md
xxd README.md   tail -f app.log   ls -la 2>/dev/null   type python   command -v python
go version   cargo --version   npm --version   git diff --no-index a b   history
file -b src/a.py   stat -c %s README.md   stat --format=%Y README.md   grep -rn /api/users src
uniq -c README.md   diff README.md data.csv   diff -u src/a.py src/b.py
diff -q src/a.py src/b.py   echo -n x   date +%Y-%m-%d   date "+%Y-%m-%d %H:%M"   date -u   id -u
test -f README.md   git log --author alice --since "2 weeks ago"   git tag -n
git remote get-url origin   git ls-tree HEAD   git ls-tree -r --name-only HEAD   git shortlog -sn
git shortlog -sne HEAD   git reflog -5   git cat-file -p HEAD   git cat-file -t HEAD
git cat-file -p HEAD:README.md   git rev-list --count HEAD   git rev-list -n 1 HEAD
""")


@pytest.mark.usefixtures("everything_installed")
@pytest.mark.parametrize("command", MUST_ASK, ids=lambda c: ascii(c)[:60])
def test_a_command_that_might_do_harm_is_asked(root, command):
    assert mca.read_only_argv(command, root) is None


@pytest.mark.usefixtures("everything_installed")
@pytest.mark.parametrize("command", MAY_RUN)
def test_a_command_that_plainly_reads_runs_unasked(root, command):
    argv = mca.read_only_argv(command, root)
    assert argv is not None
    assert os.path.isabs(argv[0])


@pytest.mark.usefixtures("everything_installed")
def test_most_everyday_commands_run_unasked(root):
    everyday = MAY_RUN + EVERYDAY_BUT_ASKED
    free = [command for command in everyday if mca.read_only_argv(command, root)]
    assert len(free) >= 0.65 * len(everyday)


def test_the_tables_are_as_large_as_promised():
    assert len(set(MUST_ASK)) == len(MUST_ASK) >= 300
    assert len(set(MAY_RUN)) == len(MAY_RUN) >= 80
    assert not set(MUST_ASK) & set(MAY_RUN)


# -- Properties ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("everything_installed")
@pytest.mark.parametrize("char", ["$", ";", "&", "|", "<", ">", "(", ")", "{", "}", "*", "?", "~",
                                  "\\", "`", "!", "\n", "\r", "\t", "\0", "\x1b", "\x7f", "\x80",
                                  "\u00a0", "\u202e", "\ud800", "é"], ids=ascii)  # fmt: skip
def test_a_forbidden_character_asks_wherever_it_stands(root, char):
    for command in ("ls -la src", 'grep -n "def main" src/a.py', "git log --oneline -5"):
        assert mca.read_only_argv(command, root)
        for place in range(len(command) + 1):
            assert mca.read_only_argv(command[:place] + char + command[place:], root) is None


DANGER = """-exec -delete --output=x -o --ext-diff --textconv --pre=x --evil -f ../out/a /etc/passwd
    link-out/a pipe .git/config - --files0-from=x --no-index -O -R -L --open-files-in-pager $x a;b
    /proc/self/environ .mini-coding-agent""".split()
# Where such a word means something else: ls -R walks, tree -f prints paths, cut -delete cuts at "e",
# grep -exec looks for "xec", -o leaves something out, -L names files or lines.
HARMLESS = {
    "-R": {"ls"},
    "-f": {"sort", "tree", "cut"},
    "-delete": {"cut"},
    "-exec": {"grep", "egrep", "fgrep", "rg", "git grep"},
    "-o": {"find", "grep", "egrep", "fgrep", "rg", "git ls-files"},
    "-L": {"grep", "egrep", "fgrep", "tree", "git blame", "git log", "git show"},
}


@pytest.mark.usefixtures("everything_installed")
def test_random_words_around_a_dangerous_one_never_run(root):
    chance, found = random.Random(5), set()
    harmless = "a.py src README.md -l -n --stat -5 5 -- HEAD x -i -a".split()
    for _ in range(30_000):
        name, danger = chance.choice(list(MODULE.READ_ONLY)), chance.choice(DANGER)
        words = chance.choices(harmless, k=chance.randrange(4))
        words.insert(chance.randrange(len(words) + 1), danger)
        if mca.read_only_argv(" ".join([*name, *words]), root):
            found.add((" ".join(name), danger))
    assert found <= {(name, danger) for danger, names in HARMLESS.items() for name in names}


@pytest.mark.usefixtures("everything_installed")
def test_every_row_refuses_an_unknown_option_and_a_path_outside(root):
    words = (
        "--evil --evil=x -~ - -@ --output=x --- --= -= -\u00b2 +1 -- /etc/passwd ../out/a".split()
    )
    for name in MODULE.READ_ONLY:
        for word in words:
            if (word, name[0]) != ("--", "git"):
                assert not mca.read_only_argv(" ".join([*name, word]), root), (name, word)


def table_options():
    """Yield (name, option as it stands in its row) for the whole table."""
    for line in re.sub(r"\n +", " ", MODULE.TABLE.strip()).splitlines():
        names, _, row = line.partition("|")
        for name in names.split(","):
            yield from ((name.strip(), item) for item in row.split() if item.startswith("-"))


@pytest.mark.usefixtures("everything_installed")
def test_no_long_option_may_be_shortened(root):
    long = [(name, re.split("[=_]", option)[0]) for name, option in table_options()]
    for name, option in [pair for pair in long if pair[1].startswith("--")]:
        for short in (option[:end] for end in range(3, len(option))):
            if (name, short) not in long and tuple(
                f"{name} {short}".split()
            ) not in MODULE.READ_ONLY:
                assert mca.read_only_argv(f"{name} {short}", root) is None, (name, short)
                assert mca.read_only_argv(f"{name} {short}=5", root) is None


def test_no_letter_is_a_flag_and_takes_a_value_in_one_row():
    """So there is one way to read a bundle, for us, for the program and for the pattern's speed."""
    flags, valued = set(), set()
    for name, option in table_options():
        if bundle := re.fullmatch(r"-\[([\w-]+)\]\+|-(\w)", option):
            flags |= {(name, letter) for letter in bundle[1] or bundle[2]}
        elif value := re.fullmatch(r"-(?:\[[\w-]+\]\*)?(?:\[(\w+)\]|(\w)):?[A-Z]+", option):
            valued |= {(name, letter) for letter in value[1] or value[2]}
        else:
            assert re.fullmatch("--|--[a-z-]+(=[A-Z]+)?|-[a-z]{2,}(_[A-Z]+)?", option), option
    assert len(flags) > 100 and len(valued) > 30 and not flags & valued


@pytest.mark.usefixtures("everything_installed")
def test_no_row_holds_an_option_that_writes_runs_or_follows(root):
    bad = {
        "sort": "-o -T --output --compress-program --files0-from --temporary-directory",
        "find": "-exec -execdir -ok -okdir -delete -fprint -fprint0 -fprintf -fls -files0-from "
        "-L -H -follow",
        "rg": "--pre --hostname-bin -z --search-zip -L --follow -f --file",
        "grep": "-R --dereference-recursive -f --file -d -D",
        "tree": "-o -l -R -H -I -P --fromfile",
        "tail": "-f -F --follow --retry",
        "file": "-C -m -f -z",
        "ls": "-L -H --dereference",
        "du": "-L -D -H --files0-from",
        "date": "-s --set -f",
        "hostname": "-f -F -i",
        "git": "-O --output --ext-diff --textconv --no-index --exec --upload-pack --show-signature "
        "--open-files-in-pager --submodule --batch --stdin --contents",
    }
    for name in MODULE.READ_ONLY:
        for option in bad.get(name[0], "").split():
            for form in ("", "x", "=x", " x", "5", " 5", "=5"):
                assert not mca.read_only_argv(f"{' '.join(name)} {option}{form}", root), option


@pytest.mark.usefixtures("everything_installed")
def test_no_row_takes_more_than_linear_time(root):
    started = time.monotonic()
    for name, option in table_options():
        word = re.sub(r"_[A-Z]+|:?(NUMBER|WORD)|FORMAT", " 5", option).replace("= ", "=")
        word = re.sub(r"\[(\w).*?\][+*]?", r"\1", word)
        for unit in (word + " ", word.replace(" ", "") + " ", word, "-" + word[1:2] * 30 + " "):
            mca.read_only_argv(f"{name} {unit * (1_900 // len(unit))} --evil", root)
    assert time.monotonic() - started < 5


@pytest.mark.usefixtures("everything_installed")
def test_noise_never_raises_and_takes_linear_time(root):
    chance = random.Random(7)
    letters = "ls -git\"'/.#[]=\n\0\ud800 é$%^5"
    for _ in range(20_000):
        mca.read_only_argv("".join(chance.choices(letters, k=chance.randrange(60))), root)
    started = time.monotonic()
    for unit in ("a", " ", "ls ", '"', "'", "-", "a ", '"a" ', "../", "\0", "\ud800", "%", "#",
                 "--x=", "=", "-l ", "\\", "é", "git log "):  # fmt: skip
        for command in (unit * (1_000_000 // len(unit)), "ls " + unit * (1_990 // len(unit))):
            mca.read_only_argv(command, root)
            mca.read_only_argv("git log --format=" + command, root)
    assert time.monotonic() - started < 10


@pytest.mark.usefixtures("everything_installed")
def test_a_root_that_is_missing_or_odd_never_raises(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for odd in (tmp_path / "none", tmp_path / "loop", tmp_path / "x\0y"):
        mca.read_only_argv("cat a", odd)


@pytest.mark.usefixtures("everything_installed")
def test_a_chain_of_a_thousand_links_never_raises(root):
    """Before Python 3.13 resolving it recurses too deeply (asked); later it is merely missing."""
    mca.read_only_argv("cat deep0", root)
    mca.read_only_argv("ls deep5/x", root)


@pytest.mark.usefixtures("everything_installed")
def test_an_absolute_path_inside_the_workspace_may_run(root):
    assert mca.read_only_argv(f"cat {root}/README.md", root)
    assert mca.read_only_argv(f"ls {root}", root)
    assert mca.read_only_argv(f"cat {root}-evil/a", root) is None
    assert mca.read_only_argv(f"cat {root}/../out/a", root) is None
    assert mca.read_only_argv(f"cat /proc/self/root{root}/README.md", root) is None


# -- What is executed ---------------------------------------------------------------------------


@pytest.mark.usefixtures("everything_installed")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ls -la", ["/usr/bin/ls", "-la"]),
        ("  ls   -la  ", ["/usr/bin/ls", "-la"]),
        ('head -n 5 "a b"', ["/usr/bin/head", "-n", "5", "a b"]),
        ("sed -n '1,5p' README.md", ["/usr/bin/sed", "-n", "1,5p", "README.md"]),
        ("rg --files src", ["/usr/bin/rg", "--no-config", "--files", "src"]),
        (
            "  git  --no-pager log -1",
            [
                "/usr/bin/git",
                *MODULE.GIT_OPTIONS,
                "log",
                "--submodule=short",
                "--pretty=medium",
                "--relative",
                "--no-ext-diff",
                "--no-textconv",
                "-1",
            ],
        ),
    ],
)
def test_what_runs_is_the_command_word_for_word(root, command, words):
    assert mca.read_only_argv(command, root) == words


@pytest.mark.usefixtures("everything_installed")
@pytest.mark.parametrize("command", [c for c in MAY_RUN if c.startswith("git ")])
def test_git_gets_its_hardening(root, command):
    argv = mca.read_only_argv(command, root)
    assert argv is not None
    options = list(MODULE.GIT_OPTIONS)
    assert argv[1 : 1 + len(options)] == options
    if any(f"git {name}" in command for name in ("diff", "show", "log")):
        assert {"--no-ext-diff", "--no-textconv"} <= set(argv)
    if command.split()[1] in ("status", "diff"):
        assert "--ignore-submodules=all" in argv


def test_git_is_asked_about_where_the_repository_names_programs(root, monkeypatch):
    monkeypatch.setattr(MODULE, "find_program", lambda name, root: f"/usr/bin/{name}")
    monkeypatch.setattr(MODULE, "git_runs_foreign_programs", lambda root: True)
    for command in MAY_RUN:
        assert (mca.read_only_argv(command, root) is None) == command.startswith("git"), command


def test_a_program_that_cannot_be_found_is_asked_about(root, monkeypatch):
    monkeypatch.setattr(MODULE, "find_program", lambda name, root: None)
    assert not any(mca.read_only_argv(command, root) for command in MAY_RUN)


def test_grep_never_walks_into_git_or_the_state_folder(root):
    argv = mca.read_only_argv("grep -rn main .", root)
    if argv is None:
        pytest.skip("grep is not installed")
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    assert "src/a.py" in done.stdout
    assert ".git/" not in done.stdout
    assert ".mini-coding-agent" not in done.stdout
    assert "out/a" not in done.stdout


# -- A hostile repository ------------------------------------------------------------------------

HOSTILE = ["core.fsmonitor", "diff.external", "diff.x.textconv", "diff.x.command", "gpg.program",
           "core.pager", "pager.log", "core.sshCommand", "core.editor", "log.showSignature=true",
           "diff.submodule=diff", "status.submoduleSummary=true", "submodule.recurse=true",
           "format.pretty=%GS", "pretty.medium=%GS", "core.hooksPath=hooks", "core.gitProxy",
           "interactive.diffFilter", "credential.helper", "diff.tool=x", "difftool.x.cmd",
           "uploadpack.packObjectsHook", "core.alternateRefsCommand", "alias.status", "alias.log",
           "tar.x.command", "trailer.x.command", "merge.x.driver"]  # fmt: skip


def git(folder, *words, **options):
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
    return subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True, **options
    )


def make_hostile(folder, canary):
    """Turn the folder into a repository in which many settings would run a program."""
    script = folder.parent / "evil.sh"
    script.write_text(f'#!/bin/sh\necho "$0 $*" >> {canary}\ncat 2>/dev/null\nexit 0\n')
    script.chmod(0o755)
    (folder / "src").mkdir()
    (folder / ".gitattributes").write_text("*.py diff=x filter=x\n*.md diff=x\n")
    for name in ("README.md", "src/a.py", "src/b.py", "data.csv"):
        (folder / name).write_text("def main\nother\n")
    other = folder.parent / "other"
    other.mkdir()
    for path in (other, folder):
        git(path, "init", "-q", "-b", "main", ".")
        (path / "f.md").write_text("def main\n")
        (path / ".gitattributes").write_text("*.py diff=x filter=x\n*.md diff=x\n")
        git(path, "add", ".")
        git(path, "commit", "-qm", "one")
    git(folder, "submodule", "add", "-q", str(other), "module")
    git(folder, "commit", "-qam", "two")
    git(folder, "branch", "feature")
    git(folder, "tag", "-a", "-m", "x", "v1.0")
    (folder / "module" / "f.md").write_text("def main\nmore\n")
    git(folder / "module", "commit", "-qam", "more")
    (folder / "src" / "a.py").write_text("def main\nchanged\n")
    git(folder, "commit", "-qam", "three")
    tree = git(folder, "rev-parse", "HEAD^{tree}").stdout.strip()
    signed = (
        f"tree {tree}\nparent {git(folder, 'rev-parse', 'HEAD').stdout.strip()}\n"
        "author a <a@b> 1700000000 +0000\ncommitter a <a@b> 1700000000 +0000\n"
        "gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\nfour\n"
    )
    commit = git(
        folder, "hash-object", "-t", "commit", "-w", "--stdin", input=signed
    ).stdout.strip()
    git(folder, "reset", "-q", "--soft", commit)
    git(folder, "remote", "add", "origin", f"ext::{script}")
    (folder / "src" / "a.py").write_text("def main\nchanged again\n")
    (folder / "module" / "f.md").write_text("def main\neven more\n")
    hooks = folder / "hooks"
    hooks.mkdir()
    for place in (hooks, folder / ".git" / "hooks"):
        for hook in ("post-index-change", "pre-commit", "post-checkout", "reference-transaction"):
            shutil.copy(script, place / hook)
    settings = [*HOSTILE, "filter.x.clean", "filter.x.smudge"]
    for place in (folder, folder / "module"):
        for setting in settings:
            key, _, value = setting.partition("=")
            program = f"!{script}" if key.startswith("alias") else str(script)
            subprocess.run(["git", "config", key, value or program], cwd=place, check=True)
    os.utime(folder / "README.md")
    canary.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    top = tmp_path_factory.mktemp("hostile").resolve()
    (top / "ws").mkdir()
    make_hostile(top / "ws", top / "canary")
    return top


GIT_MAY_RUN = [command for command in MAY_RUN if command.startswith("git ")]


def execute(argv, hostile, **more):
    """Run the words as the agent does: an environment without GIT_*, but for one variable.

    GIT_ALLOW_PROTOCOL is the only thing that a repository's protocol.NAME.allow does not override.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    env |= {"GIT_ALLOW_PROTOCOL": "none"} | more
    return subprocess.run(
        argv,
        cwd=hostile / "ws",
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    "plain", ["git status", "git diff", "git log -p", "git show HEAD", "git log -1"]
)
def test_the_hostile_repository_is_hostile(hostile, plain):
    canary = hostile / "canary"
    execute(plain.split(), hostile)
    assert canary.exists()
    canary.unlink()


@pytest.mark.parametrize("command", GIT_MAY_RUN)
def test_no_git_command_runs_a_program_of_the_repository(hostile, command):
    """The whole decision, as it stands: either it asks, or nothing of the repository's runs."""
    argv = mca.read_only_argv(command, hostile / "ws")
    if argv is not None:
        execute(argv, hostile)
    assert not (hostile / "canary").exists()


@pytest.mark.parametrize("command", GIT_MAY_RUN)
def test_the_hardening_alone_stops_all_but_filters(hostile, command, monkeypatch):
    """Without the look at the configuration: only the clean filter is known to get through."""
    monkeypatch.setattr(MODULE, "git_runs_foreign_programs", lambda root: False)
    argv = mca.read_only_argv(command, hostile / "ws")
    assert argv is not None
    no_filter = ["-c", "filter.x.clean=", "-c", "filter.x.smudge="]
    execute([argv[0], *no_filter, *argv[1:]], hostile)
    canary = hostile / "canary"
    ran = canary.read_text() if canary.exists() else ""
    canary.unlink(missing_ok=True)
    assert not ran


@pytest.fixture
def part(tmp_path):
    """A workspace that is a folder of its repository; the text "outside" is beside it."""
    ws = tmp_path.resolve() / "repo" / "ws"
    ws.mkdir(parents=True)
    git(ws.parent, "init", "-q", ".")
    for text in ("one", "two"):
        (ws / "inside.txt").write_text(f"{text}\n")
        (ws.parent / "secret").write_text(f"outside {text}\n")
        git(ws.parent, "add", ".")
        git(ws.parent, "commit", "-qm", text)
    (ws / "inside.txt").write_text("three\n")
    (ws.parent / "secret").write_text("outside three\n")
    return ws


@pytest.mark.parametrize(
    "command",
    ["git diff", "git diff HEAD", "git log -p", "git log -p -- .", "git show", "git show HEAD",
     "git log --stat -p", "git grep outside", "git grep -n inside", "git ls-files", "git status"],
)  # fmt: skip
def test_git_shows_of_a_larger_repository_only_the_workspace(part, command):
    argv = mca.read_only_argv(command, part)
    assert argv is not None
    shown = execute(argv, part.parent).stdout.decode()
    assert "outside" not in shown and ("inside.txt" in shown or "grep" in command)


@pytest.mark.parametrize(
    "command",
    ["git show HEAD:../secret", "git show HEAD:secret", "git show :secret", "git show :./../secret",
     "git diff HEAD:secret HEAD:ws/inside.txt", "git grep outside -- :/", "git ls-files :/",
     "git log -p -- :/", "git log -L:x:../secret", "git log -L1,2:../secret", "git rev-parse HEAD:secret",
     "git grep outside HEAD:", "git log -p -- ':/secret'", "git diff ../secret"],
)  # fmt: skip
def test_names_that_lead_out_of_a_part_of_a_repository_are_asked(part, command):
    assert mca.read_only_argv(command, part) is None


@pytest.mark.skipif(os.name == "nt", reason="needs FIFOs")
@pytest.mark.parametrize(
    "name", [".git/config", ".git/HEAD", ".git/index", ".git/packed-refs", ".gitignore",
             ".gitattributes", "ws/.gitignore"],
)  # fmt: skip
def test_a_fifo_in_a_repository_costs_the_start_one_short_wait(part, name, monkeypatch):
    repo = part.parent
    (part / "inside.txt").write_text("own\n")  # as long as before, so git has to read it
    began = time.monotonic()
    mca.WorkspaceContext.build(repo)
    usual = time.monotonic() - began
    (repo / name).unlink(missing_ok=True)
    os.mkfifo(repo / name)
    monkeypatch.setattr(MODULE, "GIT_SECONDS", 0.25)
    began = time.monotonic()
    snapshot = mca.WorkspaceContext.build(repo)
    assert 0.25 <= time.monotonic() - began < 0.5 + 3 * usual
    assert snapshot.status == "(unknown: git took over 0.25 s)" and "secret" in snapshot.text()


def test_in_a_repository_that_only_waits_git_is_asked(part, monkeypatch):
    (part.parent / ".git" / "config").unlink()
    os.mkfifo(part.parent / ".git" / "config")
    monkeypatch.setattr(MODULE, "GIT_SECONDS", 0.2)
    assert mca.read_only_argv("git status", part) is None


LAZY = {
    "ext": {"remote.origin.url": "ext::EVIL x", "protocol.ext.allow": "always"},
    "file": {"remote.origin.url": "/x", "remote.origin.uploadpack": "EVIL",
             "protocol.file.allow": "always"},
    "ssh": {"remote.origin.url": "ssh://x/y", "core.sshCommand": "EVIL",
            "protocol.ssh.allow": "always"},
}  # fmt: skip


@pytest.mark.parametrize("way", LAZY)
@pytest.mark.parametrize(
    "command", ["git show HEAD:README.md", "git show HEAD", "git log -p", "git blame README.md"]
)
def test_a_partial_clone_fetches_nothing(tmp_path, monkeypatch, way, command):
    """A missing object makes git call the repository's remote, whatever it is asked to do."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    monkeypatch.setattr(MODULE, "git_runs_foreign_programs", lambda root: False)
    ws, script = tmp_path / "ws", tmp_path / "evil.sh"
    ws.mkdir()
    script.write_text(f"#!/bin/sh\necho ran >> {tmp_path}/canary\nexit 1\n")
    script.chmod(0o755)
    git(ws, "init", "-q", ".")
    (ws / "README.md").write_text("def main\n")
    git(ws, "add", ".")
    git(ws, "commit", "-qm", "one")
    blob = git(ws, "rev-parse", "HEAD:README.md").stdout.strip()
    (ws / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    partial = {"core.repositoryformatversion": "1", "extensions.partialClone": "origin",
               "remote.origin.promisor": "true"}  # fmt: skip
    for key, value in {**partial, **LAZY[way]}.items():
        git(ws, "config", key, value.replace("EVIL", str(script)))
    argv = mca.read_only_argv(command, ws)
    assert argv is not None
    execute(argv, tmp_path, GIT_ALLOW_PROTOCOL="ext:file:ssh")
    assert (tmp_path / "canary").exists(), "the trap does not work"
    (tmp_path / "canary").unlink()
    execute(argv, tmp_path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("command", [c for c in MAY_RUN if not c.startswith("git ")])
def test_no_allowed_command_changes_the_workspace(hostile, command):
    argv = mca.read_only_argv(command, hostile / "ws")
    if argv is None:
        pytest.skip("not installed here")
    before = {path: path.lstat().st_mtime_ns for path in sorted((hostile / "ws").rglob("*"))}
    execute(argv, hostile)
    assert {
        path: path.lstat().st_mtime_ns for path in sorted((hostile / "ws").rglob("*"))
    } == before
    assert not (hostile / "canary").exists()
