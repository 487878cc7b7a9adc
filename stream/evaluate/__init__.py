"""The yardstick: a recorded stream through the very code of rank and train, judged before it is learned.

::

    run.py        the stream in turns: some events, rank, train; rank and train on logs in memory
    apart.py      train in a process of its own;  `learning.py`: what runs there
    watch.py      rank as it always is, told apart: no slates published, what it sees is handed over
    lists.py      predictions of shown lists, and what was clicked
    following.py  what a visitor touched next, among the items that rank would recommend
    copies.py     models that lag behind: frozen, or taken over now and then
    baselines.py  displayed order, popularity, last touched first; `linear.py`: a model of river
    measures.py   figures of predictions;  `render.py`: tables
"""
