"""Why a training run went as it did: recorded facts, findings about them, and a report.

======================= ===================================================================================
``facts``, ``reading``  what a training run records, and how it is read back
``probe``, ``origin``   what is measured inside a step: layers, and the origin of NaN
``ending``, ``splits``  what is measured once, at the end of the training run
``findings``            one pure function each: facts in, a finding or nothing out
``report``, ``page``    Markdown and a page in one file, with ``plots``
``diagnose``            all steps in order, for ``cytoray train`` and ``cytoray diagnose``
======================= ===================================================================================
"""
