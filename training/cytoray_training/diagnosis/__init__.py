"""Why a training went as it went: facts that it writes down, findings about them, and a report.

======================= ===================================================================================
``facts``, ``reading``  what a training records, and how it is read back
``probe``, ``origin``   what is measured inside a step: layers, and where numbers stop being numbers
``ending``, ``splits``  what is measured once, when the training has ended
``findings``            one pure function each: facts in, a finding or nothing out
``report``, ``page``    Markdown and a page in one file, with ``plots``
``diagnose``            all of it in order, for ``cytoray train`` and ``cytoray diagnose``
======================= ===================================================================================
"""
